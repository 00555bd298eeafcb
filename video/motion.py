"""How instruments move: the measures of surgical skill research, from tip positions over time.

Positions are pixels unless `mm_per_px` says otherwise; a camera without calibration has no millimetres, and
the report says so. Source of spectral arc length (SPARC) and log dimensionless jerk (LDLJ): Balasubramanian,
Melendez-Calderon, Roby-Brami, Burdet, "On the analysis of movement smoothness", J. NeuroEng. Rehabil. 12:112
(2015).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trocar.runtime.config import limits

Float64Array = npt.NDArray[np.float64]

# SPARC's constants, as in the paper: the greatest frequency that movement has, and the amplitude that counts.
_SPARC_MAX_HZ = 10.0
_SPARC_AMPLITUDE = 0.05
_SPARC_PADDING = 4


@dataclass(frozen=True, slots=True)
class MotionSettings:
    """Thresholds of the motion measures.

    Parameters
    ----------
    idle_per_s : a tip slower than this share of the frame's diagonal a second is idle.
    gap_s : a track that is not seen for longer is two stretches; nothing is measured across the gap.
    """

    idle_per_s: float = field(default=0.02, metadata=limits(0, 10))
    gap_s: float = field(default=0.2, metadata=limits(0.01, 60))


@dataclass(frozen=True, slots=True)
class Motion:
    """One instrument's motion. Lengths are in `unit`.

    Parameters
    ----------
    unit : `px`, uncalibrated, or `mm`.
    in_view_s : time in view, gaps left out.
    path_length : sum of distances between one seen position and the next.
    mean_speed, peak_speed : a second.
    idle_s : time slower than the threshold.
    economy_of_area : area of the box of all positions over the path length squared; None without a path.
    ldlj, sparc : smoothness of the longest stretch, dimensionless, nearer 0 is smoother; None where it is
        shorter than a second or does not move.
    """

    unit: str
    in_view_s: float
    path_length: float
    mean_speed: float
    peak_speed: float
    idle_s: float
    economy_of_area: float | None
    ldlj: float | None
    sparc: float | None


def measure(
    times_s: Float64Array,
    positions_px: Float64Array,
    *,
    diagonal_px: float,
    settings: MotionSettings,
    mm_per_px: float | None = None,
) -> Motion:
    """Measure one track.

    Parameters
    ----------
    times_s : (n,) float64, rising.
    positions_px : (n, 2) float64, x and y of the tip.
    diagonal_px : of the frame.
    mm_per_px : the scale of a calibrated camera.
    """
    scale = 1.0 if mm_per_px is None else mm_per_px
    positions = positions_px * scale
    steps_s = np.diff(times_s)
    seen = steps_s <= settings.gap_s
    distances = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    speeds = distances[seen] / steps_s[seen]
    in_view_s = float(steps_s[seen].sum())
    path_length = float(distances[seen].sum())
    idle = speeds < settings.idle_per_s * diagonal_px * scale
    begin, end = _longest_stretch(seen)
    smoothness = _smoothness(times_s[begin:end], positions[begin:end])
    return Motion(
        unit="px" if mm_per_px is None else "mm",
        in_view_s=in_view_s,
        path_length=path_length,
        mean_speed=path_length / in_view_s if in_view_s else 0.0,
        peak_speed=float(speeds.max(initial=0.0)),
        idle_s=float(steps_s[seen][idle].sum()),
        economy_of_area=float(np.prod(np.ptp(positions, axis=0))) / path_length**2 if path_length else None,
        ldlj=smoothness[0],
        sparc=smoothness[1],
    )


def ldlj(speed: Float64Array, rate_hz: float) -> float:
    """Return the log dimensionless jerk of a speed profile: -ln(T^3 / v_peak^2 * integral of (d2v/dt2)^2).

    Parameters
    ----------
    speed : (n,) float64, equally spaced, at least three.
    rate_hz : samples a second.
    """
    step_s = 1.0 / rate_hz
    jerk = np.diff(speed, 2) / step_s**2
    duration_s = len(speed) * step_s
    scale = duration_s**3 / float(np.max(np.abs(speed))) ** 2
    return float(-np.log(scale * float(np.sum(jerk**2)) * step_s))


def sparc(speed: Float64Array, rate_hz: float) -> float:
    """Return the spectral arc length of a speed profile.

    The length of the normalised magnitude spectrum's curve from 0 to the adaptive cut-off: the last frequency
    up to 10 Hz at which it reaches 0.05.

    Parameters
    ----------
    speed : (n,) float64, equally spaced.
    rate_hz : samples a second.
    """
    size = 2 ** (int(np.ceil(np.log2(len(speed)))) + _SPARC_PADDING)
    spectrum = np.abs(np.fft.rfft(speed, size))
    frequency_hz = np.arange(len(spectrum)) * rate_hz / size
    spectrum = spectrum / spectrum.max()
    within = frequency_hz <= _SPARC_MAX_HZ
    frequency_hz, spectrum = frequency_hz[within], spectrum[within]
    reached = np.nonzero(spectrum >= _SPARC_AMPLITUDE)[0]
    chosen = slice(int(reached[0]), int(reached[-1]) + 1)
    frequency_hz, spectrum = frequency_hz[chosen], spectrum[chosen]
    span_hz = frequency_hz[-1] - frequency_hz[0]
    if span_hz == 0:
        return 0.0
    return float(-np.sum(np.hypot(np.diff(frequency_hz) / span_hz, np.diff(spectrum))))


def _longest_stretch(seen: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """First sample and one past the last of the longest run without a gap."""
    best, begin = (0, 1), 0
    for index, joined in enumerate([*seen, False]):
        if not joined:
            if index + 1 - begin > best[1] - best[0]:
                best = (begin, index + 1)
            begin = index + 1
    return best


def _smoothness(times_s: Float64Array, positions: Float64Array) -> tuple[float | None, float | None]:
    """Both measures of one stretch, on equal steps: frames of a real stream come a little unevenly."""
    if len(times_s) < 5 or times_s[-1] - times_s[0] < 1.0:
        return None, None
    rate_hz = (len(times_s) - 1) / float(times_s[-1] - times_s[0])
    even_s = np.linspace(times_s[0], times_s[-1], len(times_s))
    even = np.column_stack([np.interp(even_s, times_s, positions[:, axis]) for axis in range(2)])
    speed = np.linalg.norm(np.diff(even, axis=0), axis=1) * rate_hz
    if float(speed.max()) == 0.0 or not np.any(np.diff(speed, 2)):
        return None, None
    return ldlj(speed, rate_hz), sparc(speed, rate_hz)
