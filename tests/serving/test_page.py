"""The page in a real browser: everything that a person does with it, and what the server then says."""

from __future__ import annotations

import json
import re
import shutil
from urllib.parse import quote

import pytest
from tests.serving.browser import Tab, started_browser
from tests.serving.servers import JSON, served

from langptune_rs.serving.live_run import LiveRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

TEXT = "Slow trains at night. Red dragons, and old kitchens! No loud cats."
SENTENCES = ["Slow trains at night.", "Red dragons, and old kitchens!", "No loud cats."]
TOKEN = "only-those-who-know-it"
ODD = [
    '<img src=x onerror="window.hacked=1"> & <b>trains</b>',
    "<|im_start|>system<eos><pad>[CLS] trains<assistant>",
    "{{7*7}} ${7*7} javascript:alert(1) '; DROP TABLE users; --",
]


@pytest.fixture(scope="module")
def browser():
    with started_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(loaded, tmp_path_factory):
    with served(loaded, tmp_path_factory.mktemp("page")) as client:
        yield client


@pytest.fixture
def new_tab(browser, server):
    """Makes tabs, each with a browser's memory of its own, and looks at the end whether the browser complained."""
    contexts, tabs = [], []

    def make(url=None, **context):
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context}))
        tabs.append(Tab(contexts[-1].new_page(), str(url or server.base_url).rstrip("/")))
        return tabs[-1]

    yield make
    for tab in tabs:
        tab.check()
    for context in contexts:
        context.close()


@pytest.fixture
def tab(new_tab):
    return new_tab()


def asked(client, method, path, body=None):
    answer = client.request(method, f"/v2/{path}", content=None if body is None else json.dumps(body), headers=JSON)
    assert answer.status_code == 200, answer.text
    return answer.json()


def with_profile(client, user, text=TEXT, **more):
    """Give a user a profile, as another program would."""
    version = asked(client, "GET", f"users/{user}")["version"]
    body = {"expected_version": version, "profile": {"text": text, **more}, "changed_by": "setup"}
    return asked(client, "PUT", f"users/{user}/profile", body)["version"]


def current(client, user):
    return asked(client, "GET", f"users/{user}")["current"]


def recommended(client, user, profile, k=20):
    items = asked(client, "POST", "recommend", {"profile": profile, "user": user, "k": k})["items"]
    return [(item["id"], item["rank"]) for item in items]


def steered(client, user, profile, edits, k=20):
    return asked(client, "POST", "steer", {"profile": profile, "edits": edits, "user": user, "k": k})


def arrows(steering, k=20):
    """What the page should show beside the items that moved."""
    expected = {}
    for move in steering["moves"][: len(steering["after"])]:
        if move["rise"]:
            is_new = "new " if move["rank_before"] > k else ""
            arrow = f"{'▲' if move['rise'] > 0 else '▼'} {abs(move['rise'])}"
            expected[move["id"]] = f"{is_new}{arrow} was {move['rank_before']}"
    return expected


def answering(status, content):
    """A handler that answers in the server's place."""
    return lambda route: route.fulfill(status=status, json=content)


def with_odd_titles(route):
    """Let the server answer, with other titles."""
    answer = route.fetch(max_retries=3, timeout=0)
    odd = json.loads(answer.text(), object_hook=lambda said: {**said, "title": ODD[0]} if "title" in said else said)
    route.fulfill(response=answer, json=odd)


def test_a_user_is_found_and_the_policy_writes_the_first_profile(tab, server):
    page = tab.open().page
    page.fill("#user-field", "U1")
    page.wait_for_selector("#user-list [role=option]")
    assert tab.texts("#user-list li")[:3] == ["u1", "u10", "u11"]
    assert "11 users begin" in tab.text("#user-hint")
    page.locator("#user-list li").nth(1).click()
    page.wait_for_selector("#past-list li")
    user = asked(server, "GET", "users/u10")
    assert tab.texts("#past-list .title") == [item["title"] for item in user["history"]]
    assert tab.texts("#past-list .rating [aria-hidden]") == [f"★ {item['rating']:g}" for item in user["history"]]
    assert "no profile yet" in tab.text("#no-profile")

    page.fill("#name-field", "Ada")
    page.click("#write-first")
    page.wait_for_selector("#ranking li")
    version = current(server, "u10")
    assert (version["number"], version["kind"], version["changed_by"]) == (1, "written", "Ada")
    assert tab.settled().sentences() == [sentence["text"] for sentence in version["profile"]["sentences"]]
    assert tab.ranking() == recommended(server, "u10", {"text": version["profile"]["text"]})
    assert "Version 1, written by the policy for Ada" in tab.text("#version-line")


def test_an_unknown_user_is_said_and_what_was_open_stays(tab, server):
    with_profile(server, "u2")
    tab.open("#user=u2").settled()
    tab.expected = {404}
    tab.page.fill("#user-field", "u999")
    tab.page.press("#user-field", "Enter")
    tab.page.wait_for_selector("#user-error:not([hidden])")
    assert "There is no user 'u999'" in tab.text("#user-error")
    assert tab.sentences() == SENTENCES


def test_an_edit_moves_the_items_as_the_server_says(tab, server):
    with_profile(server, "u3")
    tab.open("#user=u3").settled()
    assert tab.ranking() == recommended(server, "u3", {"text": TEXT})
    assert tab.moves() == {}

    tab.sentence(1).fill("Quick planes by day.")
    tab.settled()
    text = TEXT.replace(SENTENCES[0], "Quick planes by day.")
    steering = steered(server, "u3", {"text": TEXT}, [{"kind": "rewrite", "text": text}])
    assert tab.ranking() == recommended(server, "u3", {"text": text})
    assert tab.moves() == arrows(steering)
    assert tab.moves()
    left = [f"{m['title']} {m['rank_before']} → {m['rank_after']}" for m in steering["moves"][20:]]
    assert [" ".join(row.split("\n")[:2]) for row in tab.texts("#left-list li")] == left
    assert "Moves since version 1" in tab.text("#ranking-line")
    assert current(server, "u3")["number"] == 1  # nothing is kept until somebody saves

    tab.page.click("#ranking-more")
    tab.settled()
    assert tab.ranking() == recommended(server, "u3", {"text": text}, k=36)
    assert tab.page.locator("#ranking-more").is_hidden()


def test_sentences_are_added_removed_and_weighed(tab, server):
    with_profile(server, "u4")
    tab.open("#user=u4").settled()
    tab.press_beside(2, "Remove")
    assert tab.sentences() == [SENTENCES[0], SENTENCES[2]]
    tab.press_beside(1, "Let sentence 1 count more").press_beside(1, "Let sentence 1 count more")
    tab.press_beside(2, "Let sentence 2 count less")
    assert tab.texts(".weight") == ["×2", "×0.75"]
    tab.add("Bread is fine.")
    text = f"{SENTENCES[0]} {SENTENCES[2]} Bread is fine."
    profile = {"text": text, "weights": {SENTENCES[0]: 2, SENTENCES[2]: 0.75}}
    assert tab.ranking() == recommended(server, "u4", profile)
    edits = [
        {"kind": "rewrite", "text": text},
        {"kind": "weigh", "sentence": 1, "weight": 2.0},
        {"kind": "weigh", "sentence": 2, "weight": 0.75},
    ]
    assert tab.moves() == arrows(steered(server, "u4", {"text": TEXT}, edits))

    # A weight stays with its sentence while that is written anew, and with both where it becomes two.
    tab.sentence(1).fill("Slow boats at night. Slow trains too.")
    tab.page.locator("#add-field").focus()
    tab.settled()
    tab.wait_for_number(".sentence", 4)
    assert tab.sentences() == ["Slow boats at night.", "Slow trains too.", SENTENCES[2], "Bread is fine."]
    assert tab.texts(".weight") == ["×2", "×2", "×0.75", "×1"]

    tab.page.click("#save")
    tab.wait_for_text("#save-status", "Saved")
    kept = current(server, "u4")["profile"]
    assert kept["weights"] == {"Slow boats at night.": 2, "Slow trains too.": 2, SENTENCES[2]: 0.75}
    assert tab.ranking() == recommended(server, "u4", {name: kept[name] for name in ("text", "weights", "requests")})


def test_wishes_stand_beside_the_text(tab, server):
    with_profile(server, "u5")
    page = tab.open("#user=u5").settled().page
    page.click("#wishes-box summary")
    page.fill("#wish-field", "loud cats")
    page.select_option("#wish-sign", "-1")
    page.click("#wish-form button")
    tab.settled()
    assert tab.texts(".wish p") == ["Less of loud cats"]
    assert tab.ranking() == recommended(server, "u5", {"text": TEXT, "requests": {"loud cats": -0.5}})
    for _ in range(2):
        page.get_by_role("button", name="More of loud cats").click()
    assert tab.settled().texts(".wishes .weight") == ["×0.25", "×0.25"][:1]
    page.get_by_role("button", name="More of loud cats").click()
    assert tab.settled().texts(".wish p") == ["More of loud cats"]
    assert tab.ranking() == recommended(server, "u5", {"text": TEXT, "requests": {"loud cats": 0.5}})
    page.click("#save")
    tab.wait_for_text("#save-status", "Saved")
    assert current(server, "u5")["profile"]["requests"] == {"loud cats": 0.5}
    page.get_by_role("button", name="Remove the wish loud cats").click()
    assert tab.settled().ranking() == recommended(server, "u5", {"text": TEXT})


def test_a_wish_may_be_a_word_that_scripts_know(new_tab, server):
    """Objects of JavaScript have a constructor without being given one."""
    with_profile(server, "u21")
    tab = new_tab()
    page = tab.open("#user=u21").settled().page
    page.click("#wishes-box summary")
    for wish in ("constructor", "__proto__"):
        page.fill("#wish-field", wish)
        page.press("#wish-field", "Enter")
        tab.settled()
    wishes = {"constructor": 0.5, "__proto__": 0.5}
    assert tab.ranking() == recommended(server, "u21", {"text": TEXT, "requests": wishes})
    page.click("#save")
    tab.wait_for_text("#save-status", "Saved")
    assert current(server, "u21")["profile"]["requests"] == wishes
    for wish in wishes:
        page.get_by_role("button", name=f"Remove the wish {wish}").click()
        tab.settled()
    assert tab.ranking() == recommended(server, "u21", {"text": TEXT})
    page.fill("#add-field", "constructor")
    page.press("#add-field", "Enter")
    assert tab.settled().ranking() == recommended(server, "u21", {"text": f"{TEXT} constructor"})


def test_the_whole_text_is_edited_and_weights_stay_with_their_sentences(tab, server):
    with_profile(server, "u6", weights={SENTENCES[0]: 3.0})
    page = tab.open("#user=u6").settled().page
    page.check("#view-text", force=True)
    text = f"{SENTENCES[0]}\n\nNothing else, please. Or little."
    page.fill("#text-field", text)
    tab.settled()
    assert tab.ranking() == recommended(server, "u6", {"text": text, "weights": {SENTENCES[0]: 3}})
    page.check("#view-sentences", force=True)
    assert tab.sentences() == [SENTENCES[0], "Nothing else, please.", "Or little."]
    assert tab.texts(".weight") == ["×3", "×1", "×1"]
    page.click("#save")
    tab.wait_for_text("#save-status", "Saved")
    assert current(server, "u6")["profile"]["text"] == text


def test_what_is_typed_is_ranked_by_its_end_alone(tab, server):
    """An answer that comes late, to a question that is no longer the last one, is dropped."""
    with_profile(server, "u7")
    page = tab.open("#user=u7").settled().page
    late = []
    page.route("**/v2/steer", lambda route: late.append(route) if not late else route.continue_())
    tab.sentence(3).fill("Cats that purr.")
    page.wait_for_timeout(300)
    tab.sentence(3).fill("Cats that sleep.")
    tab.settled()
    text = TEXT.replace(SENTENCES[2], "Cats that sleep.")
    assert len(late) == 1
    assert tab.ranking() == recommended(server, "u7", {"text": text})
    late[0].abort()
    page.unroute("**/v2/steer")
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    tab.sentence(3).press_sequentially("Dogs", delay=2)
    tab.settled()
    assert len([url for url in sent if "/v2/" in url]) < 4


def test_a_sentence_shows_what_it_lifts_and_lowers(tab, server):
    with_profile(server, "u8")
    page = tab.open("#user=u8").settled().page
    page.locator(".sentence").nth(1).hover()
    page.wait_for_selector(".sentence.looked")
    steering = steered(server, "u8", {"text": TEXT}, [{"kind": "weigh", "sentence": 2, "weight": 0.0}])
    shown = {item["id"] for item in steering["before"]}
    expected = {
        move["id"]: f"{'▼' if move['rise'] > 0 else '▲'} {abs(move['rise'])} {move['rank_after']} without"
        for move in steering["moves"]
        if move["id"] in shown and move["rise"]
    }
    assert tab.moves() == expected
    assert re.match(r"Sentence 2 lifts \d+ of these, most .*, and lowers \d+\.", tab.text("#ranking-line"))
    page.mouse.move(5, 5)
    tab.wait_for("!document.querySelector('.sentence.looked')")
    assert tab.moves() == {}
    assert tab.text("#ranking-line") == "The 20 nearest of 36 items."
    tab.sentence(1).focus()  # the same by the keyboard
    page.wait_for_selector(".sentence.looked")
    assert tab.text("#ranking-line").startswith("Sentence 1 lifts")


def test_an_item_says_why_it_is_there(tab, server):
    with_profile(server, "u9")
    page = tab.open("#user=u9").settled().page
    button = page.locator("#ranking .item").nth(4)
    button.click()
    page.wait_for_selector("#ranking .why td")
    item = tab.ranking()[4][0]
    found = asked(server, "POST", "explain", {"profile": {"text": TEXT}, "item": item, "user": "u9"})
    assert tab.texts("#ranking .why tbody th") == SENTENCES
    cells = [cell.strip() for cell in tab.texts("#ranking .why td")]
    expected = [(f"{p['effect']:+.3f}".replace("-", "−"), str(p["rank_without"])) for p in found["parts"]]
    assert cells == [cell for row in expected for cell in row]
    assert tab.texts("#ranking .nearest .title") == [near["title"] for near in found["history"]]
    assert button.get_attribute("aria-expanded") == "true"
    page.keyboard.press("Escape")
    assert button.get_attribute("aria-expanded") == "false"


def test_a_profile_of_one_sentence_is_explained_by_its_words(tab, server):
    text = "Slow trains, red dragons and very old kitchens at night."
    with_profile(server, "u9", text)
    page = tab.open("#user=u9").settled().page
    page.locator("#ranking .item").first.click()
    page.wait_for_selector("#ranking .why td")
    item = tab.ranking()[0][0]
    body = {"profile": {"text": text}, "item": item, "by": "word", "user": "u9"}
    parts = asked(server, "POST", "explain", body)["parts"]
    strongest = sorted(parts, key=lambda part: -abs(part["effect"]))[:6]
    assert tab.texts("#ranking .why tbody th") == [part["text"] for part in strongest]
    page.mouse.move(5, 5)
    tab.sentence(1).focus()
    tab.wait_for_text("#ranking-line", "Beside an empty text, this sentence lifts")


def test_what_is_done_with_a_draft_is_in_sight_and_on_a_phone_so_is_what_moves(new_tab, server):
    with_profile(server, "u30", " ".join(f"Slow trains number {number}." for number in range(40)))
    tab = new_tab(viewport={"width": 360, "height": 740}, reduced_motion="reduce").open("#user=u30").settled()
    page = tab.page
    first = tab.texts("#ranking .item .title")[0]
    assert first in tab.text("#glance-items")
    page.fill(".sentence:nth-child(20) textarea", "Red dragons everywhere, and red dragons again!")
    tab.settled()
    moved = len(tab.moves())
    assert tab.text("#glance-moves") == (f"{moved} moved ↓" if moved else "Ranking ↓")
    for element in ("#save", "#undo", "#glance"):
        box = page.locator(element).bounding_box()
        assert 0 <= box["y"] <= 740 - box["height"], element
    page.click("#glance")
    assert tab.focused() == "ranking-heading"
    assert 0 <= page.locator("#ranking-heading").bounding_box()["y"] < 370


def test_going_back_brings_what_was_not_saved(tab, server):
    with_profile(server, "u31")
    page = tab.open("#user=u31").settled().page
    tab.sentence(1).fill("Fast boats.")
    tab.settled().open_user("u2")
    assert "go back" in tab.text("#link-note")
    tab.wait_for("location.hash === '#user=u2'")
    page.go_back()
    tab.wait_for("document.title.startsWith('User u31 ')").settled()
    tab.wait_for_number(".sentence", 3)
    assert tab.sentences() == ["Fast boats.", *SENTENCES[1:]]
    page.go_forward()
    tab.wait_for("document.title.startsWith('User u2 ')")
    page.locator(".skip").first.focus()
    page.keyboard.press("Enter")
    assert tab.focused() == "profile-heading"
    assert page.url.endswith("#user=u2")  # a step inside the page is none to another state


def test_the_api_can_be_read(tab, server):
    page = tab.open("api.html").page
    document = asked(server, "GET", "openapi.json")
    operations = [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]
    shown = [tuple(text.splitlines()[0].split()) for text in tab.texts("#operations summary")]
    assert sorted(shown) == sorted((method, path.replace(":path}", "}")) for method, path in operations)
    steer = page.locator("#operations details", has_text="/v2/steer")
    steer.locator("summary").click()
    keys = steer.locator("ul").first.locator("> li > code").all_inner_texts()
    assert keys == list(document["components"]["schemas"]["SteerBody"]["properties"])
    assert "1 to 1,000" in steer.inner_text()
    tab.check_accessibility()


def test_changes_are_undone_and_versions_restored(tab, server):
    with_profile(server, "u11")
    page = tab.open("#user=u11").settled().page
    tab.press_beside(3, "Remove").press_beside(1, "Let sentence 1 count more")
    tab.sentence(1).press_sequentially(" And")  # one change, not four
    assert tab.settled().sentences() == [f"{SENTENCES[0]} And", SENTENCES[1]]
    page.keyboard.press("Control+z")
    assert tab.settled().sentences() == SENTENCES[:2]
    assert tab.texts(".weight") == ["×1.5", "×1"]
    page.click("#undo")
    page.click("#undo")
    assert tab.settled().sentences() == SENTENCES
    assert tab.ranking() == recommended(server, "u11", {"text": TEXT})
    assert page.locator("#undo").get_attribute("aria-disabled") == "true"
    page.click("#redo")
    assert tab.settled().sentences() == SENTENCES[:2]
    page.click("#discard")
    assert tab.settled().sentences() == SENTENCES

    tab.press_beside(1, "Remove")
    page.fill("#name-field", "Ada")
    page.keyboard.press("Control+s")
    tab.wait_for_text("#save-status", "Saved as version 2.")
    version = current(server, "u11")
    assert (version["changed_by"], version["kind"]) == ("Ada", "edited")
    assert version["profile"]["text"] == " ".join(SENTENCES[1:])
    assert tab.moves() == {}  # they count from what is saved

    page.click("#versions-box summary")
    page.wait_for_selector("#versions .snippet")
    assert tab.texts("#versions .number") == ["2", "1"]
    assert tab.texts("#versions .snippet") == [" ".join(SENTENCES[1:]), TEXT]
    page.get_by_role("button", name="Restore version 1").click()
    tab.wait_for_text("#versions .number", "3")
    assert tab.settled().sentences() == SENTENCES
    assert current(server, "u11")["restores"] == 1
    assert page.locator("#undo-version").is_hidden()  # nothing comes before the first
    tab.press_beside(3, "Remove")
    page.click("#save")
    tab.wait_for_text("#versions .number", "4")
    page.click("#undo-version")
    tab.wait_for_text("#versions .number", "5")
    assert tab.settled().sentences() == SENTENCES
    assert current(server, "u11")["kind"] == "restored"
    assert tab.page.evaluate("localStorage.getItem('langptune.name')") == "Ada"
    page.reload()
    page.wait_for_selector("#ranking li")
    assert page.input_value("#name-field") == "Ada"


def test_a_link_opens_what_was_seen(new_tab, server):
    with_profile(server, "u12")
    tab = new_tab(permissions=["clipboard-read", "clipboard-write"]).open("#user=u12").settled()
    tab.sentence(2).fill("Réd drägons & <b>кухни</b> 龍 🚂.")
    tab.press_beside(2, "Let sentence 2 count more")
    tab.page.click("#wishes-box summary")
    tab.page.fill("#wish-field", "ночь + día")
    tab.page.press("#wish-field", "Enter")
    tab.settled().page.click("#copy-link")
    tab.page.wait_for_selector("#link-note:not([hidden])")
    link = tab.page.evaluate("navigator.clipboard.readText()")
    assert link == tab.page.url
    assert link.startswith(f"{tab.url}/#user=u12&state=")

    other = new_tab(viewport={"width": 360, "height": 700}).open(link.partition("/#")[2].join(["#", ""])).settled()
    assert other.sentences() == tab.sentences()
    assert other.texts(".weight") == tab.texts(".weight") == ["×1", "×1.5", "×1", "×0.5"]
    assert other.texts(".wish p") == ["More of ночь + día"]
    assert other.ranking() == tab.ranking()
    assert other.moves() == tab.moves()

    # Somebody saves: the link still opens what was seen, and says so.
    with_profile(server, "u12", "Nothing but trains.")
    late = new_tab().open(f"#{link.partition('#')[2]}").settled()
    assert late.sentences() == tab.sentences()
    assert "Meanwhile setup saved version 2" in late.text("#conflict")


def test_a_link_that_is_broken_or_too_long_is_said(new_tab, server):
    with_profile(server, "u13")
    for fragment in ("#user=u13&state=AAAA", "#state=%%%", "#user=u13&state=q1YqSS0uUbJSKkktLlGyUqoFAA"):
        tab = new_tab().open(fragment)
        assert "This link is broken" in tab.text("#link-note")
    tab = new_tab()
    tab.expected = {404}
    tab.open("#user=nobody")
    assert "There is no user 'nobody'" in tab.text("#link-note")
    tab = new_tab().open("#user=u13").settled()
    tab.page.check("#view-text", force=True)
    letters = "".join(chr(0x4E00 + (n * n * 7919) % 20000) for n in range(3990))
    tab.page.fill("#text-field", letters)
    tab.settled().page.click("#copy-link")
    tab.page.wait_for_selector("#link-note:not([hidden])")
    assert re.search(r"makes a link of [\d,]+ characters", tab.text("#link-note"))
    assert tab.page.url.endswith("/#user=u13")


def test_a_pasted_history_names_the_lines_that_it_cannot_use(new_tab, server):
    tab = new_tab().open()
    page = tab.page
    titles = [item["title"] for item in asked(server, "GET", "items?query=story 1&limit=5")["items"]]
    page.check("#source-history", force=True)
    page.fill(
        "#history-field",
        f"{titles[0]} | 4\n\nStory 1 of red dragonz\n  {titles[1].upper()}\t2,5\ni2; 9\n{titles[0]}\n<b>Nothing</b>",
    )
    page.click("#history-panel button[type=submit]")
    page.wait_for_selector("#past-list li")
    problems = tab.texts("#history-problems li")
    assert [re.match(r"Line \d+, “.*?” ", problem)[0] for problem in problems] == [
        "Line 3, “Story 1 of red dragonz” ",
        "Line 5, “i2” ",
        f"Line 6, “{titles[0]}” ",
        "Line 7, “<b>Nothing</b>” ",
    ]
    assert "is no item of the catalog" in problems[0]
    assert "rating 9, which is not from 0 to 5" in problems[1]
    assert "of line 1 again" in problems[2]
    assert tab.texts("#past-list .title")[:2] == titles[:2]
    assert tab.texts("#past-list .rating [aria-hidden]") == ["★ 4", "★ 2.5"]
    assert tab.text("#history-status") == "3 titles of 6 used."

    suggestion = page.locator("#history-problems button").first
    wanted = suggestion.inner_text()
    suggestion.click()
    tab.wait_for_number("#past-list li", 4)
    assert wanted in tab.texts("#past-list .title")
    page.click("#write-first")
    page.wait_for_selector("#ranking li")
    assert tab.settled().sentences()
    shown = [item for item, _ in tab.ranking()]
    assert not {"i2", *(item["id"] for item in asked(server, "GET", f"items?query={titles[0]}")["items"])} & set(shown)
    assert page.locator("#save").is_hidden()
    assert "nobody to save a profile for" in tab.text("#save-status")

    tab.add("Old kitchens.")
    page.wait_for_timeout(600)  # the address follows
    other = new_tab().open(f"#{page.url.partition('#')[2]}").settled()
    assert other.sentences() == tab.sentences()
    assert other.texts("#past-list .title") == tab.texts("#past-list .title")
    assert other.ranking() == tab.ranking()


def test_a_history_of_nothing_known_is_said(tab):
    page = tab.open().page
    page.check("#source-history", force=True)
    page.click("#history-panel button[type=submit]")
    assert "There is no line yet" in tab.text("#history-error")
    page.fill("#history-field", "Xyzzy\nPlugh")
    page.click("#history-panel button[type=submit]")
    page.wait_for_selector("#history-error:not([hidden])")
    assert "None of these titles" in tab.text("#history-error")
    page.fill("#history-field", "\n".join(f"Story {n}" for n in range(101)))
    page.click("#history-panel button[type=submit]")
    assert "There are 101 titles" in tab.text("#history-error")


def test_two_who_save_at_once_see_each_other(tab, server):
    version = with_profile(server, "u14")
    tab.expected = {409}
    page = tab.open("#user=u14").settled().page
    tab.sentence(1).fill("Fast trains at noon.")
    tab.settled()
    body = {"expected_version": version, "profile": {"text": "Only bread."}, "changed_by": "<i>Bob</i>"}
    asked(server, "PUT", "users/u14/profile", body)
    page.click("#save")
    page.wait_for_selector("#conflict:not([hidden])")
    assert tab.focused() == "conflict"
    assert tab.text("#conflict-heading") == "Meanwhile <i>Bob</i> saved version 2"
    assert tab.texts("#conflict-diff ins") == ["Only bread"]
    assert current(server, "u14")["number"] == 2
    assert tab.sentences()[0] == "Fast trains at noon."

    page.click("#conflict-take")
    assert tab.settled().sentences() == ["Only bread."]
    page.click("#undo")
    assert tab.settled().sentences()[0] == "Fast trains at noon."  # nothing was lost
    asked(server, "PUT", "users/u14/profile", {**body, "expected_version": 2, "changed_by": "Eve"})
    page.click("#save")
    page.wait_for_selector("#conflict:not([hidden])")
    page.click("#conflict-keep")
    page.click("#save")
    tab.wait_for_text("#save-status", "Saved as version 4.")
    assert current(server, "u14")["profile"]["text"].startswith("Fast trains at noon.")

    # Who comes back to the tab sees what others have saved meanwhile.
    with_profile(server, "u14", "Bread again.")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    tab.wait_for_text("#version-line", "Version 5")
    assert tab.settled().sentences() == ["Bread again."]


def test_the_policy_proposes_and_a_person_decides(tab, server):
    with_profile(server, "u15")
    page = tab.open("#user=u15").settled().page
    page.click("#policy-box summary")
    page.fill("#instruct-field", "fewer cats")
    page.press("#instruct-field", "Enter")
    page.wait_for_selector("#proposal:not([hidden])")
    proposed = asked(server, "POST", "propose", {"text": TEXT, "instruction": "fewer cats"})["profile"]["text"]
    assert tab.focused() == "proposal"
    assert tab.page.locator("#proposal-diff ins").count()
    assert tab.sentences() == SENTENCES
    page.click("#proposal-discard")
    assert page.locator("#proposal").is_hidden()
    page.click("#instruct-form button")
    page.click("#proposal-take")
    tab.settled().page.check("#view-text", force=True)
    assert page.input_value("#text-field") == proposed
    page.click("#undo")
    assert tab.settled().page.input_value("#text-field") == TEXT

    same = {"profile": {"text": TEXT, "weights": {}, "requests": {}, "sentences": []}, "model_version": "x"}
    page.route("**/v2/propose", lambda route: route.fulfill(json={**same, "policy": "trained", "source": "written"}))
    page.click("#instruct-form button")
    page.wait_for_selector("#proposal:not([hidden])")
    assert "proposes no change" in tab.text("#proposal")
    assert page.locator("#proposal-take").is_hidden()


def test_writing_can_be_stopped(tab, server):
    with_profile(server, "u16")
    page = tab.open("#user=u16").settled().page
    page.route("**/v2/propose", lambda route: None)  # a policy that takes its time
    page.click("#policy-box summary")
    page.fill("#instruct-field", "fewer cats")
    page.press("#instruct-field", "Enter")
    page.wait_for_selector("#writing:not([hidden])")
    page.keyboard.press("Escape")
    page.wait_for_selector("#writing", state="hidden")
    assert tab.sentences() == SENTENCES
    assert page.locator("#policy-error").is_hidden()


def test_profiles_are_compared_side_by_side(tab, server):
    with_profile(server, "u17")
    page = tab.open("#user=u17").settled().page
    page.click("#compare-toggle")
    tab.wait_for_number("#compare li", 30)
    columns = page.locator("#compare .column")
    untrained = asked(server, "GET", "users/u17/profile/untrained")["profile"]["text"]
    popular = asked(server, "GET", "popular?user=u17&k=10")["items"]
    ids = [[row.get_attribute("data-id") for row in columns.nth(place).locator("li").all()] for place in range(3)]
    assert columns.nth(1).locator(".quote").inner_text().split() == untrained.split()
    assert ids[0] == [item for item, _ in recommended(server, "u17", {"text": TEXT}, 10)]
    assert ids[1] == [item for item, _ in recommended(server, "u17", {"text": untrained}, 10)]
    assert ids[2] == [item["id"] for item in popular]
    mine = dict(recommended(server, "u17", {"text": TEXT}))
    for row, item in zip(columns.nth(2).locator("li").all(), ids[2], strict=True):
        assert row.locator(".here").inner_text() == (f"{mine[item]} here" if item in mine else "")
    tab.press_beside(1, "Remove")
    expected = [item for item, _ in recommended(server, "u17", {"text": " ".join(SENTENCES[1:])}, 10)]
    assert [row.get_attribute("data-id") for row in columns.nth(0).locator("li").all()] == expected


def test_all_of_it_works_by_keyboard(tab, server):
    with_profile(server, "u18")
    page = tab.open().page
    page.keyboard.press("Tab")
    assert tab.focused() == "Skip to the profile"
    page.keyboard.press("Control+k")
    page.keyboard.type("u1")
    tab.wait_for_number("#user-list li", 8)
    page.keyboard.type("8")
    tab.wait_for_number("#user-list li", 1)
    page.keyboard.press("ArrowDown")
    assert page.locator("#user-field").get_attribute("aria-activedescendant") == "user-0"
    page.keyboard.press("Enter")
    page.wait_for_selector("#ranking li")
    assert page.locator("#user-list").is_hidden()

    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(tab.focused())
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        hidden = page.evaluate(
            "document.activeElement.matches('input[type=radio]')"
        )  # the label beside it has the ring
        assert ring != "none" or hidden, f"{seen[-1]} has the focus and does not show it"
        if seen[-1] == "Sentence 1 of 3":
            break
    assert "view-sentences" in seen
    page.keyboard.press("Enter")
    assert tab.focused() == "Sentence 2 of 3"
    page.keyboard.press("Alt+ArrowUp")
    assert tab.settled().texts(".weight") == ["×1", "×1.5", "×1"]
    page.keyboard.press("Alt+Delete")
    assert tab.settled().sentences() == [SENTENCES[0], SENTENCES[2]]
    assert tab.focused() == "Sentence 2 of 2"
    page.keyboard.press("Control+z")
    assert tab.settled().sentences() == SENTENCES
    assert tab.texts(".weight") == ["×1", "×1.5", "×1"]
    page.keyboard.press("Control+Shift+Z")
    page.keyboard.press("Enter")
    assert tab.focused() == "add-field"
    page.keyboard.type("And bread.")
    page.keyboard.press("Enter")
    assert tab.settled().sentences() == [SENTENCES[0], SENTENCES[2], "And bread."]
    page.keyboard.press("Control+s")
    tab.wait_for_text("#save-status", "Saved as version 2.")
    assert current(server, "u18")["profile"]["text"] == f"{SENTENCES[0]} {SENTENCES[2]} And bread."

    page.locator(".skip").nth(1).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.querySelector('.rank').textContent") == "2"
    page.keyboard.press("Enter")
    page.wait_for_selector("#ranking .why td")
    page.keyboard.press("Escape")
    assert page.locator("#ranking .why:not([hidden])").count() == 0
    assert page.evaluate("document.activeElement.querySelector('.rank').textContent") == "2"


def test_a_screen_reader_is_told_what_moved(tab, server):
    with_profile(server, "u19")
    page = tab.open("#user=u19").settled().page
    tab.press_beside(1, "Remove")
    tab.wait_for("/items? ha(s|ve) moved, \\d+ left the list. First is /.test(announcer.textContent)")
    moved = page.locator("#ranking .item", has=page.locator(".move.up")).first
    assert re.search(r", (new in the list, )?up \d+, was \d+", moved.text_content())
    for role in ("banner", "main"):
        assert page.get_by_role(role).count() == 1
    for name in ("Whose profile?", "History", "Profile", "Ranking", "Compare"):
        assert page.get_by_role("region", name=name, exact=True).count() == 1, name


LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 3
RIGHT_TO_LEFT = "قطارات بطيئة في الليل. مطابخ قديمة!"


@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (1280, "dark"), (640, "light"), (360, "dark")]
)  # 640 is 1280 at 200%
def test_no_rule_of_accessibility_is_broken_at_any_width(new_tab, server, width, scheme):
    user = "u20"
    with_profile(server, user, f"{LONG}. {RIGHT_TO_LEFT} {SENTENCES[1]}", requests={LONG: 0.5})
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    tab = new_tab(**options, reduced_motion="reduce").open()
    page = tab.page

    def check():
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        tab.check_accessibility()

    check()
    tab.open_user(user).press_beside(1, "Let sentence 1 count more")
    page.locator("#ranking .item").first.click()
    page.wait_for_selector("#ranking .why td")
    for fold in ("#versions-box", "#policy-box"):
        page.click(f"{fold} summary")
    page.click("#compare-toggle")
    tab.wait_for_number("#compare li", 30)
    page.click("#copy-link")
    check()
    page.check("#view-text", force=True)
    page.fill("#text-field", "")
    page.wait_for_selector("#profile-error:not([hidden])")
    check()
    page.check("#source-history", force=True)
    page.fill("#history-field", f"{LONG}\nStory 1 of red dragonz")
    page.click("#history-panel button[type=submit]")
    page.wait_for_selector("#history-error:not([hidden])")
    page.click("#open-help")
    check()


def test_markup_and_control_tokens_are_text_everywhere(new_tab, server):
    """Whatever the server says is text, too, though it cleans the titles of its data."""
    tab = new_tab()
    tab.expected = {404, 409}
    page = tab.page
    page.route("**/v2/**", with_odd_titles)
    tab.open("#user=u55").settled()
    before = page.locator("b, img, script, i, iframe").count()
    for odd in ODD:
        tab.add(odd)
    page.fill("#name-field", ODD[0])
    page.click("#wishes-box summary")
    page.fill("#wish-field", ODD[1])
    page.press("#wish-field", "Enter")
    tab.settled().page.click("#save")
    tab.wait_for_text("#save-status", "Saved")
    kept = current(server, "u55")
    assert kept["changed_by"] == ODD[0]
    assert kept["profile"]["requests"] == {ODD[1]: 0.5}
    assert all(odd in kept["profile"]["text"] for odd in ODD)
    assert ODD[0] in tab.text("#version-line")
    assert ODD[1] in tab.text("#wishes")

    page.click("#versions-box summary")
    page.wait_for_selector("#versions .snippet")
    page.locator("#ranking .item").first.click()
    page.wait_for_selector("#ranking .why td")
    for titles in ("#past-list .title", "#ranking .item .title", ".nearest .title"):
        assert set(tab.texts(titles)) == {ODD[0]}
    with_profile(server, "u55", f"{ODD[2]} {ODD[0]}")
    tab.sentence(1).fill(ODD[1])
    page.click("#save")
    page.wait_for_selector("#conflict:not([hidden])")
    page.click("#compare-toggle")
    page.wait_for_selector("#compare li")
    for value in ODD:
        page.fill("#user-field", value)
        page.press("#user-field", "Enter")
        page.wait_for_selector("#user-error:not([hidden])")
        page.check("#source-history", force=True)
        page.fill("#history-field", value)
        page.click("#history-panel button[type=submit]")
        page.wait_for_selector("#history-error:not([hidden])")
        assert value in tab.text("#history-problems")
        page.check("#source-user", force=True)
    for fragment in (f"#user={quote(ODD[0])}", f"#state={quote(ODD[0])}"):
        page.goto(f"{tab.url}/{fragment}")
        page.wait_for_selector("#link-note:not([hidden])")
    assert page.locator("b, img, script, i, iframe").count() == before
    assert page.evaluate("window.hacked") is None
    page.unroute_all(behavior="wait")


def test_what_the_server_refuses_stands_beside_its_cause_and_nothing_is_lost(tab, server):
    with_profile(server, "u25")
    page = tab.open("#user=u25").settled().page
    ranking = tab.ranking()
    page.check("#view-text", force=True)
    page.fill("#text-field", "x" * 4001)
    page.wait_for_selector("#profile-error:not([hidden])")
    assert "4001 characters, 1 more than the 4000" in tab.text("#profile-error")
    page.click("#save")
    page.wait_for_selector("#save-error:not([hidden])")
    assert page.input_value("#text-field") == "x" * 4001
    assert tab.ranking() == ranking
    assert "before the last change" in tab.text("#ranking-line")
    page.fill("#text-field", " \n ")
    tab.wait_for_text("#profile-error", "The profile is empty")
    page.fill("#text-field", TEXT)
    page.wait_for_selector("#profile-error", state="hidden")

    tab.expected = {507, 429, 424, 500}
    for status, kind, place, press in (
        (507, "store_full", "#save-error", "#save"),
        (429, "overloaded", "#policy-error", "#instruct-form button"),
        (424, "model", "#versions-error", "#undo-version"),
        (500, "internal", "#profile-error", "#discard"),
    ):
        page.route("**/v2/**", answering(status, {"error": f"it cannot be: {kind}", "error_type": kind}))
        page.fill("#text-field", f"{TEXT} {kind}.")
        page.wait_for_timeout(200)
        for fold in ("#policy-box", "#versions-box"):
            page.evaluate("fold => (document.querySelector(fold).open = true)", fold)
        page.fill("#instruct-field", "less")
        page.evaluate("document.getElementById('undo-version').hidden = false")
        page.click(press)
        page.wait_for_selector(f"{place}:not([hidden])")
        assert tab.text(place) == f"It cannot be: {kind}."
        page.unroute("**/v2/**")
    assert tab.ranking() == ranking


def test_a_server_that_is_away_is_waited_for(new_tab, server):
    with_profile(server, "u26")
    tab = new_tab().open("#user=u26").settled()
    page = tab.page
    tab.expected = {503}
    page.route("**/v2/**", lambda route: route.abort("connectionrefused"))
    tab.sentence(1).fill("Fast boats.")
    page.wait_for_selector("#connection:not([hidden])")
    assert "does not answer" in tab.text("#connection")
    page.click("#connection-retry")  # to no avail
    page.click("#save")
    page.wait_for_selector("#save-error:not([hidden])")
    page.unroute("**/v2/**")
    loading = {"error": "The models are being loaded. Ask again in a moment.", "error_type": "loading"}
    page.route("**/v2/**", answering(503, loading))
    tab.wait_for_text("#connection", "being loaded")
    assert page.locator("#connection-retry").is_hidden()  # it takes its time
    page.unroute("**/v2/**")
    tab.wait_for_text("#connection", "are loaded")
    tab.settled()
    assert tab.sentences()[0] == "Fast boats."
    assert tab.ranking() == recommended(server, "u26", {"text": TEXT.replace(SENTENCES[0], "Fast boats.")})
    tab._complaints = [text for text in tab._complaints if "ERR_CONNECTION_REFUSED" not in text]


def test_other_models_are_noticed(tab, server):
    with_profile(server, "u27")
    page = tab.open("#user=u27").settled().page

    def other(route):
        answer = route.fetch(max_retries=3, timeout=0)
        route.fulfill(response=answer, json={**answer.json(), "model_version": "another"})

    page.route("**/v2/**", other)
    tab.sentence(1).fill("Fast boats.")
    page.wait_for_selector("#link-note:not([hidden])")
    assert "The server has loaded other models" in tab.text("#link-note")
    tab.settled()
    page.unroute_all(behavior="wait")
    assert tab.sentences()[0] == "Fast boats."


def test_a_run_without_a_policy_says_what_it_cannot(new_tab, loaded, served_run, tmp_path):
    run = shutil.copytree(served_run, tmp_path / "run", ignore=shutil.ignore_patterns("policy"))
    live = LiveRun(run)
    live.reload()
    with served(loaded, tmp_path, live) as client:
        tab = new_tab(client.base_url).open().open_user("u5")
        page = tab.page
        assert page.locator("#write-first").is_hidden()
        tab.add("Slow trains.")
        page.click("#policy-box summary")
        assert page.locator("#policy-tools").is_hidden()
        assert "This run has no policy" in tab.text("#policy-none")
        page.click("#compare-toggle")
        tab.wait_for_number("#compare li", 20)
        assert "has no policy" in tab.text("#compare-columns")
        page.click("#save")
        tab.wait_for_text("#save-status", "Saved as version 1.")
        tab.check_accessibility()


def test_a_token_is_asked_for_and_kept_until_the_tab_is_closed(new_tab, loaded, tmp_path):
    with served(loaded, tmp_path, token=TOKEN) as client:
        tab = new_tab(client.base_url)
        tab.expected = {401}
        page = tab.page
        page.goto(f"{tab.url}/#user=u5")
        page.wait_for_selector("#token[open]")
        tab.check_accessibility()
        page.fill("#token-field", "a-token-that-is-wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#token-error:not([hidden])")
        assert "does not take this token" in tab.text("#token-error")
        page.fill("#token-field", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#past-list li")
        assert page.locator("#token").is_hidden()
        page.reload()
        page.wait_for_selector("#past-list li")
        assert page.evaluate("[sessionStorage.getItem('langptune.token'), localStorage.length]") == [TOKEN, 0]


def test_nothing_comes_from_another_host_and_nothing_moves_where_motion_is_not_wanted(new_tab, server):
    with_profile(server, "u28")
    tab = new_tab(reduced_motion="reduce")
    asked_for = []
    tab.page.on("request", lambda request: asked_for.append(request.url))
    tab.page.add_init_script(
        "window.animated = 0; const animate = Element.prototype.animate;"
        "Element.prototype.animate = function (...of) { window.animated += 1; return animate.apply(this, of); }"
    )
    tab.open("#user=u28").settled()
    tab.press_beside(1, "Remove")
    assert tab.page.evaluate("window.animated") == 0
    assert all(url.startswith((tab.url, "about:")) for url in asked_for)
    tab.page.emulate_media(reduced_motion="no-preference")
    tab.press_beside(1, "Remove")
    assert tab.page.evaluate("window.animated") > 0


def test_parts_of_a_page_that_need_no_server(tab):
    """What the modules compute: differences, drafts, lines of a history, and states in links."""
    page = tab.open().page
    diff = "([a, b]) => import('/diff.js').then(({diff}) => diff(a, b))"
    assert page.evaluate(diff, ["I love A and B.", "I love A."]) == [
        ["same", "I love A"],
        ["del", " and B"],
        ["same", "."],
    ]
    assert page.evaluate(diff, ["", "new"]) == [["ins", "new"]]
    assert page.evaluate(diff, ["same", " same "]) == [["same", " same"]]
    lines = "text => import('/history.js').then(({linesOf}) => linesOf(text))"
    assert page.evaluate(lines, "A | 4\n\nB: 2, 3\r\nC\t3,5\nD|x") == [
        {"line": 1, "name": "A", "rating": 4},
        {"line": 3, "name": "B: 2, 3", "rating": None},
        {"line": 4, "name": "C", "rating": 3.5},
        {"line": 5, "name": "D|x", "rating": None},
    ]
    trip = "state => import('/link.js').then(async ({write, read}) => read('#' + await write(state)))"
    state = {"user": "a+b c/ü&#", "version": 3, "text": "é🚂\n" * 9, "weights": [[1, 0.5]], "wishes": {"x": -1.5}}
    assert {name: value for name, value in page.evaluate(trip, state).items() if value is not None} == state
    assert page.evaluate(trip, {"history": [["i1", None], ["i2", 4.5]]})["history"] == [["i1", None], ["i2", 4.5]]
    broken = (
        "state => import('/link.js').then(async ({write, read}) => read(await write(state)).then(() => '', String))"
    )
    for changes in ({"weights": [[1, 99]]}, {"weights": [[1, -1]]}, {"wishes": {"x": 77}}):
        assert "This link is broken" in page.evaluate(broken, state | changes)
    assert page.evaluate(broken, state) == ""
    # Sentences are counted in code points, as Python does.
    of = "profile => import('/draft.js').then(({draftOf, remove, textOf}) => textOf(remove(draftOf(profile), 1)))"
    sentences = [(0, 3), (5, 7), (8, 9)]
    text = "🚂🚃.\n\nб. Z"
    profile = {
        "text": text,
        "requests": {},
        "sentences": [{"text": text[a:b], "start": a, "end": b, "weight": 1} for a, b in sentences],
    }
    assert page.evaluate(of, profile) == "🚂🚃. Z"
