"""Explains unexpected values of a mask."""

from collections.abc import Sequence

_MANY = 8  # unexpected values, from which on JPEG or smoothing are likely
_FEW_CLASSES = 32  # up to which small values are likely to be class ids
_SMOOTH = "JPEG, and resizing with smoothing, leave values between"


def explain_labels(values: Sequence[int], classes: Sequence[int], way: str) -> str:
    """Return which values of a label image are unexpected, with a likely cause.

    Args:
        values: all values of the image.
        classes: all class ids.
        way: how the values were read, such as `by grey`.
    """
    wrong = [v for v in values if v not in {0, *classes}]
    positive = [v for v in values if v]
    step = next((s for s in (85, 17) if all(v % s == 0 for v in positive)), None)
    if len(wrong) > _MANY:
        hint = _SMOOTH
    elif wrong == [255] and (len(positive) > 1 or way != "by grey"):
        hint = "is 255 void, or unsure? Then add --ignore 255"
    elif positive == [255] or (len(positive) == 1 and step is None):
        hint = "is it one class in black and white? Then name it `<image>_<class>.png`"
    elif step and all(v // step in classes for v in positive):
        hint = (
            f"are they classes times {step}, as viewers show files of few bits? "
            f"Then divide them by {step}"
        )
    else:
        hint = "are they class ids that are missing from --classes?"
    return _unexpected(wrong, f"0 and the classes {', '.join(map(str, classes))}", hint)


def explain_binary(values: Sequence[int]) -> str:
    """Return which grey values of a black and white mask are unexpected, with a likely cause.

    Args:
        values: all values of the mask.
    """
    wrong = [v for v in values if v not in {0, 255}]
    if 0 not in values and len(values) == 2:
        hint = "is its background not black? Then paint it 0"
    elif len(values) <= 2:
        hint = "is its white another grey? Then save it as 255"
    elif max(values) <= _FEW_CLASSES:
        hint = "are they class ids? Then name it `<image>.png`"
    else:
        hint = f"{_SMOOTH}; --threshold 127 takes what is nearer to white"
    return _unexpected(wrong, "0 and 255, or 0 and 1", hint)


def _unexpected(wrong: Sequence[int], expected: str, hint: str) -> str:
    shown = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
    return f"expected only the values {expected}, but got {shown} ({hint})"
