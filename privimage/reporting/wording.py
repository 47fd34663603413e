"""How the page writes numbers and sentences: the template's filters."""

from __future__ import annotations

import math

import markupsafe

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def rounded_up(epsilon: float) -> str:
    """Three decimals, never less than it is."""
    return f"{math.ceil(epsilon * 1000 - 1e-9) / 1000:.3f}"


def rounded_down(epsilon: float) -> str:
    """Three decimals, never more than it is."""
    return f"{math.floor(epsilon * 1000 + 1e-9) / 1000:.3f}"


def power_of_ten(value: float) -> str:
    """As 5×10⁻⁵."""
    mantissa, exponent = f"{value:.3g}" if value >= 0.01 else f"{value:.2e}", ""
    if "e" in mantissa:
        mantissa, exponent = mantissa.split("e")
        return f"{float(mantissa):g}×10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return mantissa


def factor(epsilon: float) -> str:
    """e to the epsilon, in two digits, rounded up."""
    if epsilon > 13:
        return f"10{str(math.ceil(epsilon / math.log(10))).translate(SUPERSCRIPTS)}"
    value = math.exp(epsilon)
    step = 10 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / step) * step:,.{1 if value < 10 else 0}f}"


def marked(sentence: str) -> markupsafe.Markup:
    """The sentence, escaped, with what stands between backticks as code."""
    pieces = map(markupsafe.escape, sentence.split("`"))
    return markupsafe.Markup("").join(
        markupsafe.Markup(f"<code>{piece}</code>") if index % 2 else piece for index, piece in enumerate(pieces)
    )


def duration(seconds: float) -> str:
    """As 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def per_cent(share: float) -> str:
    """A share as 43.2 %."""
    return f"{100 * share:.1f} %"


def interval(bounds: list[float]) -> str:
    """An interval of shares as 40.1 to 45.3 %."""
    low, high = bounds
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def each(counts: list[int]) -> str:
    """How many images of each class, as 200 or 199 to 201."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


FILTERS = {
    "up": rounded_up,
    "down": rounded_down,
    "power": power_of_ten,
    "factor": factor,
    "duration": duration,
    "marked": marked,
    "percent": per_cent,
    "interval": interval,
    "each": each,
}
