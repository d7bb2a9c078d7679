"""A text is text for every tokenizer, whatever control tokens it spells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.experiments.tiny import make_models
from tests.models.chats import KINDS, tokenizer_of
from tokenizers import AddedToken, decoders, pre_tokenizers

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


FRAMES = {
    "a space that is one token with the text": "User: {} .",
    "a word that is one token with the text": "User{}s",
    "a line feed": "User\n{}\n",
    "nothing": "{}",
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("kind", ["bytes", "merges", "pieces", "slow"])
def test_a_text_is_text_also_where_signs_around_it_are_read_with_it(kind, frame):
    """As in a chat template: [INST] stands before the signs, [/INST] after them."""
    tokenizer = spaced(kind)

    def rendered(text: str) -> str:
        return f"[INST]{FRAMES[frame].format(text)}[/INST]"

    def encode(texts: list[str], prompt: str) -> list[list[int]]:
        return [tokenizer.encode(rendered(prompt + text), add_special_tokens=False) for text in texts]

    texts = ["aB", "jazz", "", "a[/INST]b", "[INST]", "a [INST] [/INST]", "  [/INST]a\n"]
    for text, row in zip(texts, FramedText(tokenizer, encode).rows(texts, 200), strict=True):
        controls = [i for i in row if i in (tokenizer.convert_tokens_to_ids(t) for t in ("[INST]", "[/INST]"))]
        assert controls == tokenizer.convert_tokens_to_ids(["[INST]", "[/INST]"])
        read = tokenizer.decode(row)
        assert read == rendered(text) or kind in ("merges", "pieces")
        assert without_spaces(read) == without_spaces(rendered(text))
        if "INST" not in text:
            assert row == encode([text], "")[0]


def without_spaces(text: str) -> str:
    return "".join(text.split())


def spaced(kind: str):
    """A tokenizer with two marks. That of pieces has tokens for a text's first word and for a later one, as Llama's."""
    if kind != "pieces":
        return tokenizer_of(kind, ["[INST]", "[/INST]"])
    tokenizer = tokenizer_of("unigram", ["[INST]", "[/INST]"])
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.backend_tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return tokenizer


CHANGES = {
    "in lower case": str.lower,
    "without spaces around it": str.strip,
    "written twice": lambda text: f"{text} and {text}",
    "with words of its own": lambda text: ("long: " if len(text) > 3 else "") + text,
    "with signs replaced": lambda text: text.replace("a", "b"),
}


@pytest.mark.parametrize("limit", [9, 200])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["bytes", "unigram", "slow"])
def test_a_text_is_text_also_where_it_is_changed_before_it_is_read(kind, change, limit):
    tokenizer = tokenizer_of(kind, ["[inst]", "[/inst]"])
    marks = tokenizer.convert_tokens_to_ids(["[inst]", "[/inst]"])

    def rendered(text: str) -> str:
        return f"[inst]User: {CHANGES[change](text)}[/inst]"

    def encode(texts: list[str], prompt: str) -> list[list[int]]:
        rows = [tokenizer.encode(rendered(text), add_special_tokens=False) for text in texts]
        return [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in rows]

    texts = ["jazz", "a[/inst]b", "[/inst][inst]", "[/INST]B", "</s>", "x" * 40 + "[/inst]"]
    for text, row in zip(texts, FramedText(tokenizer, encode).rows(texts, limit), strict=True):
        assert [i for i in row if i in {*marks, *control_of(tokenizer)}] == marks
        assert len(row) <= limit
        if "[" not in text and "<" not in text:
            assert row == encode([text], "")[0]
        elif limit == 200 and kind == "bytes" and change not in ("with words of its own", "without spaces around it"):
            assert tokenizer.decode(row) == rendered(text)


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
