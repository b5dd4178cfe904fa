"""Makes messages of ONNX Runtime about a model fit for clients. Pure.

Its messages contain places in its own C++ sources, in two forms: `/onnxruntime_src/....cc:91` and a whole signature,
from its assertions, and `tensorprotoutils.cc:592` and the name of a function, from its statuses. They contain the path
of the model, error classes twice, and arbitrary bytes of the model's names. The rest describes the fault.

Source: messages of ONNX Runtime 1.32 for 4,500 mutated models; tests/unit/engines/test_onnx_words.py has one of each.
"""

import re

NO_MEMORY = "not enough memory for it"
NO_WORDS = "it is not a model that ONNX Runtime takes"
_CLASS = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_FILE = re.compile(r"Load model from .*? failed:")
_CONDITION = re.compile(r"^[^.]*? was false\. ?")
_FUNCTION = re.compile(r"[\w-]+\.(?:cc|cpp|h|hpp|cu):\d+ [\w~]+ ")
_PLACE = re.compile(r"/[^\s:]*\.(?:cc|cpp|h|hpp|cu|cuh):\d+ ")
_QUALIFIERS = re.compile(r"(?: const| noexcept| \[[^\]]*\])*\s*")
_WHERE_ELSE = re.compile(r" resolved path: .*| allowed directory: .*")
_NO_MEMORY = re.compile(r"bad_alloc|Failed to allocate memory|bad allocation|out of memory", re.IGNORECASE)


def public_words(error: Exception) -> str:
    """Return the message of an exception of ONNX Runtime, without its own source files, signatures and paths."""
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return NO_MEMORY
    text = next(iter(str(error).splitlines()), "")
    for pattern in (_CLASS, _FILE, _WHERE_ELSE):
        text = pattern.sub("", text)
    while (place := _PLACE.search(text)) is not None:
        text = text[: place.start()] + _CONDITION.sub("", text[_end_of_signature(text, place.end()) :])
    text = _FUNCTION.sub("", text)
    text = text.replace("Exception during initialization: ", "").replace("Error in execution: ", "")
    return "".join(letter if letter.isprintable() else "?" for letter in text).strip() or NO_WORDS


def _end_of_signature(text: str, start: int) -> int:
    """Return the index where the message begins behind a C++ signature, whose parameter types have brackets too."""
    opened = text.find("(", start)
    if opened < 0:
        return start
    depth = 0
    for index in range(opened, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            found = _QUALIFIERS.match(text, index + 1)
            return found.end() if found is not None else index + 1
    return len(text)
