"""The wording of all messages: tests/messages.txt lists them, and no other test depends on it.

After a message has changed, `make messages` writes the list again; the diff then shows the new wording for review.
"""

import ast
import re
from collections.abc import Callable, Iterable

import pytest

from tests.helpers.messages import HOLE, SNAPSHOT, Message, find_messages, source_files

MAX_LENGTH = 200
# Words in place of which the field has others: a stem and its endings each.
PRIVATE_WORDS = re.compile(
    r"\b(pictur(e|es|ed)|judg(e|es|ed|ing|ement|ements)|t(old|ell|ells|elling)|luc(k|ky)|ali(ke)|shar(e|es)|contest(ants?)"
    r"|doub(ts)|twi(ns?)|surv(ivors?)|sur(er|est)|lik(es)|tas(te)|loo(ks|ked|king)|la(p)|mis(ses)|alar(ms?)|lend(ers)"
    r"|ine(rt)|men(ds?|ded)|nob(ody))\b"
)
VERBS = set(
    """add change check choose combine compare continue convert copy correct delete do download end export extend fetch
    fill finish fix free freeze give install keep label leave lower make move name pass put rebuild register remove
    rename reorder replace report restore resume run save scale see set start train try use write""".split()
)
INVERSION = re.compile(r"(?<!there )\b(is|are|was|were) (no|none)\b(?! (longer|more|larger|later))")
FOREIGN_QUOTES = re.compile("[\u2018\u2019\u201c\u201d\u00ab\u00bb\u201e\u201a]")


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return find_messages(source_files())


def violations(messages: Iterable[Message], breaks_rule: Callable[[Message], object]) -> list[str]:
    return [str(message) for message in messages if breaks_rule(message)]


def field(message: Message) -> str:
    """`where`, `what` or `fix` for the arguments of the program's errors."""
    return message.kind.rpartition(".")[2]


def test_the_list_of_messages_is_up_to_date(messages: list[Message]) -> None:
    if not SNAPSHOT.exists():
        pytest.skip("tests/messages.txt is missing: run `make messages`")
    listed, current = SNAPSHOT.read_text(encoding="utf-8").splitlines(), [str(message) for message in messages]
    gone, new = sorted(set(listed) - set(current)), sorted(set(current) - set(listed))
    assert not gone and not new, "\n".join(["run `make messages`", *(f"- {m}" for m in gone), *(f"+ {m}" for m in new)])
    assert listed == current


def test_messages_use_the_words_of_the_field(messages: list[Message]) -> None:
    assert violations(messages, lambda message: PRIVATE_WORDS.search(message.template.lower())) == []


def test_what_and_fix_end_without_a_full_stop(messages: list[Message]) -> None:
    assert violations(messages, lambda m: field(m) in ("what", "fix") and m.template.endswith(".")) == []


def test_messages_are_short(messages: list[Message]) -> None:
    described = [message for message in messages if message.kind != "description"]
    assert violations(described, lambda message: len(message.template) > MAX_LENGTH) == []


def test_a_fix_begins_with_what_to_do(messages: list[Message]) -> None:
    def is_unclear(message: Message) -> bool:
        return not message.template.startswith((HOLE, "`", "--", "did you mean ")) and (
            message.template.split()[0].rstrip(",:;") not in VERBS
        )

    assert violations((m for m in messages if field(m) == "fix"), is_unclear) == []


def test_what_is_wrong_begins_in_lower_case(messages: list[Message]) -> None:
    names = ("AKConv", "Detect", "OpenCV", "ONNX", "COCO")
    what = [message for message in messages if field(message) == "what" and not message.template.startswith(names)]
    assert violations(what, lambda message: message.template[0].isupper()) == []


def test_messages_have_no_inversions(messages: list[Message]) -> None:
    assert violations(messages, lambda message: INVERSION.search(message.template)) == []


def test_messages_have_plain_quotes(messages: list[Message]) -> None:
    assert violations(messages, lambda message: FOREIGN_QUOTES.search(message.template)) == []


def find(*sources: str) -> list[tuple[str, str]]:
    """The kind and text of the messages of the files a.py, b.py and so on."""
    base = "class DetectorError(Exception): ...\nclass ConfigError(DetectorError): ..."
    files = {"errors.py": base, **{f"{name}.py": source for name, source in zip("abc", sources, strict=False)}}
    found = find_messages({path: ast.parse(source) for path, source in files.items()})
    return [(message.kind, message.template) for message in found]


def test_templates_have_a_hole_for_each_expression() -> None:
    source = "def f(x):\n    raise ConfigError(x, f'has {x!r} of ' + f'{x:.2f}', fix='use ' 'less')"
    assert find(source) == [("ConfigError.fix", "use less"), ("ConfigError.what", f"has {HOLE} of {HOLE}")]


def test_branches_and_local_variables_are_followed() -> None:
    source = """
def f(x):
    what = "a" if x else f"b {x}"
    name, fix = "n", "c"
    if x:
        fix = fix + "ignored"
    raise ConfigError(name, what, fix=fix or "d")
"""
    expected = [("fix", "c"), ("fix", "d"), ("what", "a"), ("what", f"b {HOLE}"), ("where", "n")]
    assert find(source) == [(f"ConfigError.{field}", text) for field, text in expected]


def test_parameters_are_followed_to_callers_in_other_files() -> None:
    helper = """
class Check:
    def fail(self, message, *, hint):
        raise ConfigError("--flag", message, fix=hint)

def require(ok, what):
    if not ok:
        Check().fail(what, hint="correct it")
"""
    caller = "from a import require as need\nneed(True, 'must be 1')\nneed(False, what=f'must be {2}')"
    unrelated = "def require(a, b): ...\nrequire(1, 'not a message')"
    expected = [("fix", "correct it"), ("what", "must be 1"), ("what", f"must be {HOLE}"), ("where", "--flag")]
    assert sorted(find(helper, caller, unrelated)) == [(f"ConfigError.{field}", text) for field, text in expected]


def test_other_exceptions_the_log_and_help_are_included() -> None:
    source = '''"""What the script does.

More."""
class OwnError(ValueError): ...
LOGGER.info("i")
LOGGER.debug("not shown")
field = option(3, "h")
parser.add_argument("--x", help="g")
parse_options(O, None, description=__doc__)
raise OwnError("o") from TypeError("t")
'''
    kinds = [("OwnError", "o"), ("TypeError", "t"), ("description", "What the script does.")]
    assert sorted(find(source)) == sorted([*kinds, ("help", "g"), ("help", "h"), ("log.info", "i")])
