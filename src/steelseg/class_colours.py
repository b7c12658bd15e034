"""One colour per class, wherever masks are drawn; told apart by colour-blind eyes too."""

from collections.abc import Sequence

Colour = tuple[int, int, int]

# after Okabe and Ito; black and grey are left out, which steel has itself
PALETTE: list[Colour] = [
    *((230, 159, 0), (86, 180, 233), (204, 121, 167), (0, 158, 115)),
    *((240, 228, 66), (213, 94, 0), (0, 114, 178)),
]


def class_colours(classes: Sequence[int]) -> dict[int, Colour]:
    """Return the (red, green, blue) of each class, by its place among the sorted classes."""
    return {c: PALETTE[i % len(PALETTE)] for i, c in enumerate(sorted(classes))}


def hexadecimal(colour: Colour) -> str:
    """Write a colour as `#rrggbb`."""
    return "#" + bytes(colour).hex()
