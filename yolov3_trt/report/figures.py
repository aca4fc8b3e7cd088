"""Numbers as readers want them; a dash where there is none."""

NONE = "–"

Bounds = tuple[float, float]


def plain(value: float | str | None, form: str = ".3g") -> str:
    """A number in this form, a text as it is."""
    if value is None:
        return NONE
    return value if isinstance(value, str) else format(value, form)


def ms(value: float | None) -> str:
    """Milliseconds, to about three digits."""
    if value is None:
        return NONE
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def size(value: float | None) -> str:
    """Bytes in units of 1024."""
    if value is None:
        return NONE
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"


def percent(value: float) -> str:
    """A share of 1."""
    return f"{value:.1%}"


def within(value: float | None, bounds: Bounds | None, form: str, sign: str = "") -> str:
    """`0.312 [0.290, 0.334]`, the bounds only where there are some."""
    if value is None:
        return NONE
    shown = f"{value:{form}}{sign}"
    return shown if bounds is None else f"{shown} [{bounds[0]:{form}}, {bounds[1]:{form}}]"
