"""A text is text for every tokenizer, whatever control tokens it spells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.experiments.tiny import make_models
from tests.models.chats import KINDS, tokenizer_of
from tokenizers import AddedToken

from langptune_rs.errors import ModelError
from langptune_rs.models.plain_text import FramedText, PlainText

HOSTILE = {
    "bytes": ["<s>", "a </s>b", "</s></s>", "</s"],
    "merges": ["</s>", "x</s>", "<s> <unk>", "<0x41>", "<unk>"],
    "unigram": ["</s>", "a</s>b <mask>", "＜/s＞", "<pad><unk>", "<s", "ℌ</s>"],
    "words": ["[SEP]", "a [MASK] b[UNK]", "[CLS][SEP][PAD]", "[sep]", "[UNK]"],
    "slow": ["</s>", "<pad>x", "a<unk>b</s>"],
}
CASES = [(kind, text) for kind, texts in HOSTILE.items() for text in texts]


def control_of(tokenizer) -> set[int]:
    return set(tokenizer.all_special_ids)


@pytest.mark.parametrize(("kind", "text"), CASES)
def test_a_text_holds_no_control_token(kind, text):
    tokenizer = tokenizer_of(kind)
    ids = PlainText(tokenizer).ids(text)
    assert ids
    assert not control_of(tokenizer) & set(ids)
    if kind in ("bytes", "merges", "slow"):
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(st.sampled_from("ab <>/[]s|\n.é")))
def test_a_text_without_control_tokens_has_the_tokenizer_s_ids(kind, text):
    tokenizer = TOKENIZERS[kind]
    own = tokenizer.encode(text, add_special_tokens=False)
    if not control_of(tokenizer) & set(own):
        assert PLAIN[kind].ids(text) == own
    else:
        assert tokenizer.unk_token_id in own or text.count("<s>") + text.count("</s>")


TOKENIZERS = {kind: tokenizer_of(kind) for kind in KINDS}
PLAIN = {kind: PlainText(tokenizer) for kind, tokenizer in TOKENIZERS.items()}


def test_tokens_that_take_in_spaces_give_them_back():
    tokenizer = tokenizer_of("bytes", [AddedToken("<mask>", special=True, lstrip=True, rstrip=True)])
    ids = PlainText(tokenizer).ids("a  <mask> b")
    assert tokenizer.decode(ids) == "a  <mask> b"
    assert tokenizer.convert_tokens_to_ids("<mask>") not in ids


def test_a_token_that_is_found_in_normalised_text_is_found():
    tokenizer = tokenizer_of("words", [AddedToken("<end>", special=True, normalized=True)])
    end = tokenizer.convert_tokens_to_ids("<end>")
    assert end in tokenizer.encode("The <END>")
    assert end not in PlainText(tokenizer).ids("The <END> <end>")


def test_a_control_token_of_one_character_is_text():
    tokenizer = tokenizer_of("bytes", ["☕"])
    coffee = tokenizer.convert_tokens_to_ids("☕")
    assert tokenizer.decode(PlainText(tokenizer).ids("a☕☕b")) == "a☕☕b"
    assert coffee not in PlainText(tokenizer).ids("a☕☕b")
    pieces = tokenizer_of("unigram", ["☕"])
    assert pieces.decode(PlainText(pieces).ids("a☕b")).split() == ["a", "<unk>b"]
    slow = tokenizer_of("slow", ["☕"])
    assert slow.decode(PlainText(slow).ids("a☕b")) == "a☕b"


def test_a_sign_that_pads_stays_what_it_is_in_a_text():
    tokenizer = tokenizer_of("bytes", pad_token="!")
    assert PlainText(tokenizer).ids("Hi! You!") == tokenizer.encode("Hi! You!")


def test_a_text_of_many_control_tokens_takes_no_time_of_its_square():
    tokenizer = tokenizer_of("unigram")
    assert not control_of(tokenizer) & set(PlainText(tokenizer).ids("</s>" * 3000))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("limit", [2, 4, 7, 100])
@pytest.mark.parametrize("kind", ["unigram", "words"])
def test_a_framed_text_keeps_its_frame_and_is_cut_as_the_tokenizer_does(kind, limit, side):
    tokenizer = tokenizer_of(kind, truncation_side=side, model_max_length=limit)

    def encode(texts: list[str], prompt: str = "") -> list[list[int]]:
        return tokenizer([prompt + text for text in texts], truncation=True)["input_ids"]

    texts = ["likes jazz and blues", "", "</s>[SEP]a", "a[SEP]</s> b <mask> [UNK]", "x" * 90 + "</s>[SEP]"]
    rows = FramedText(tokenizer, encode).rows(texts, limit)
    first, last = tokenizer.encode("")
    assert rows[:2] == encode(texts[:2])
    for text, row in zip(texts, rows, strict=True):
        assert (row[0], row[-1]) == (first, last)
        assert not control_of(tokenizer) & set(row[1:-1])
        longer = len(PlainText(tokenizer).ids(text)) + 2
        assert len(row) == min(limit, longer)


@pytest.mark.parametrize("kind", ["bytes", "unigram", "words"])
@pytest.mark.parametrize("prompt", ["likes: ", "blues", "{control} likes "])
def test_the_prompt_before_a_text_stays_as_it_is(kind, prompt):
    """Control tokens of the model's own prompt are real; those of the text behind it are not."""
    tokenizer = tokenizer_of(kind)
    tokenizer.model_max_length = 100
    frame = tokenizer.encode("")
    prompt = prompt.format(control="[SEP]" if kind == "words" else "</s>")

    def encode(texts: list[str], prompt: str) -> list[list[int]]:
        return tokenizer([prompt + text for text in texts], truncation=True)["input_ids"]

    texts = ["jazz and blues", "a</s>b [SEP]<s>c", "</s>", "[SEP]"]
    plain, *hostile = FramedText(tokenizer, encode).rows(texts, 100, prompt)
    assert plain == encode(texts[:1], prompt)[0]
    of_the_prompt = [i for i in encode(["a"], prompt)[0] if i in control_of(tokenizer)]
    for row in hostile:
        assert [i for i in row if i in control_of(tokenizer)] == of_the_prompt
        assert row[:1] + row[-1:] == frame or not frame


HOSTILE_ROWS = ["a</s>b [SEP]<s>c", "</s>", "[SEP]x", "</S> Nice", "plain jazz", ""]


@pytest.mark.parametrize("lowers", [False, True])
@pytest.mark.parametrize("prompt", ["", "Likes: "])
@pytest.mark.parametrize("kind", [*KINDS, "slow"])
def test_a_text_in_a_turn_of_its_own_holds_no_control_token(kind, prompt, lowers):
    """Some tokenizers read the start of a text in another way than what stands after a line feed."""
    tokenizer = tokenizer_of(kind)

    def encode(texts: list[str], prompt: str) -> list[list[int]]:
        turns = [f"q\n{prompt}{text}\nend" for text in texts]
        return [tokenizer.encode(turn.lower() if lowers else turn, add_special_tokens=False) for turn in turns]

    rows = FramedText(tokenizer, encode).rows(HOSTILE_ROWS, 100, prompt)
    assert not control_of(tokenizer) & {i for row in rows for i in row} - {tokenizer.unk_token_id}
    if kind in ("bytes", "merges", "slow"):
        turns = [f"q\n{prompt}{text}\nend" for text in HOSTILE_ROWS]
        assert [tokenizer.decode(row) for row in rows] == [turn.lower() if lowers else turn for turn in turns]
    plain = [row for text, row in zip(HOSTILE_ROWS, rows, strict=True) if text in ("plain jazz", "")]
    assert plain == encode(["plain jazz", ""], prompt)


@pytest.mark.parametrize("kind", [*KINDS, "slow"])
def test_a_text_holds_no_control_token_where_its_frame_is_not_known(kind):
    """As with a template that writes something about each text. Control tokens of the template stay."""
    tokenizer = tokenizer_of(kind, ["☕"])
    end = tokenizer.eos_token or tokenizer.sep_token

    def encode(texts: list[str], prompt: str) -> list[list[int]]:
        return [tokenizer.encode(f"{len(t)} {ord(t[:1] or 'x')} {t}{end}", add_special_tokens=False) for t in texts]

    framed = FramedText(tokenizer, encode)
    texts = [*HOSTILE_ROWS, "a☕☕b", "☕", "</s></s></s>"]
    for text, row in zip(texts, framed.rows(texts, 100), strict=True):
        assert framed.controls(row) == [tokenizer.convert_tokens_to_ids(end)], text
    assert framed.rows(["plain jazz"], 100) == encode(["plain jazz"], "")


def test_a_text_that_is_made_a_control_token_whatever_is_done_is_refused():
    tokenizer = tokenizer_of("bytes")

    def encode(texts: list[str], prompt: str) -> list[list[int]]:
        return [tokenizer.encode("</s>" * (len(text) % 7), add_special_tokens=False) for text in texts]

    with pytest.raises(ModelError, match=r"makes </s> of a text, however it is written: 'jazzy'"):
        FramedText(tokenizer, encode).rows(["jazzy"], 100)


def test_both_models_and_their_counters_read_texts_of_catalogs_and_users_as_text(tmp_path):
    from langptune_rs.config.embedder import EmbedderConfig
    from langptune_rs.config.policy import PolicyConfig
    from langptune_rs.models.embedder import Embedder
    from langptune_rs.models.policy import Policy
    from langptune_rs.models.tokens import token_counters

    policy_folder, embedder_folder = make_models(tmp_path)
    embedder = Embedder.load(EmbedderConfig(model=str(embedder_folder)))
    policy = Policy.load(PolicyConfig(model=str(policy_folder), last_layers=1))
    hostile, tokenizer = "nice<eos><unk><pad>", policy.tokenizer
    assert tokenizer.decode(embedder.tokens([hostile])[0]) == f"<user>{hostile}<assistant>"  # by its own chat template
    assert not {0, 1, 2} & set(embedder.tokens([hostile])[0])
    assert tokenizer.decode(policy.encode_prompt(hostile)) == f"<user>{hostile}<assistant>"
    assert not {0, 1, 2} & set(policy.encode_prompt(hostile))
    alone, beside = embedder.encode_profiles([hostile]), embedder.encode_profiles(["a", hostile])
    np.testing.assert_allclose(alone[0], beside[1], atol=1e-6)
    counters = token_counters(str(embedder_folder), str(policy_folder))
    assert counters.items([hostile]) == counters.histories([hostile]) == len(hostile)
