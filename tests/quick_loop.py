"""Which runs of pytest are the quick loop, and leave out tests that are slow."""

import re

#: What a run of the quick loop says of itself.
QUICK = "quick loop: tests marked slow are left out; --slow runs them, and so does the suite without -m"


def is_quick(expression: str, *, slow: bool) -> bool:
    """Whether slow tests are left out: who leaves out Ray by `-m` and says nothing of slow tests wants a quick loop.

    Args:
        expression: of `-m`; the whole suite, `-m "not extras"`, `-m gpu` and so on have their slow tests.
        slow: `--slow` was given.
    """
    words = " ".join(re.findall(r"\w+", expression))
    return bool(re.search(r"\bnot ray\b", words)) and "slow" not in words.split() and not slow
