"""Times, durations, sizes and numbers as the pages show them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

from markupsafe import Markup

from app.console.language import Language
from app.console.language import marked as _

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_KIB = 1024
_KNOWN_ZONES = {"Asia/Shanghai": _("Beijing time")}


@dataclass(frozen=True)
class Formats:
    """Formats values in a language and a time zone. `now` is the time of the request."""

    language: Language
    zone: ZoneInfo
    now: datetime

    @cached_property
    def zone_name(self) -> str:
        """The name of the time zone with its offset."""
        name = _KNOWN_ZONES.get(self.zone.key)
        offset = f"{self.now.astimezone(self.zone):%z}"
        hours = f"UTC{offset[0]}{int(offset[1:3])}" + (f":{offset[3:]}" if offset[3:] != "00" else "")
        return f"{self.language.text(name) if name else self.zone.key} ({hours})"

    def at(self, instant: datetime) -> str:
        """Returns the date and time, with seconds: two callbacks within a minute are distinguished by them."""
        return f"{instant.astimezone(self.zone):%Y-%m-%d %H:%M:%S}"

    def day(self, instant: datetime) -> str:
        """Returns the date."""
        return f"{instant.astimezone(self.zone):%Y-%m-%d}"

    def clock(self, instant: datetime) -> str:
        """Returns the time of day, with milliseconds."""
        local = instant.astimezone(self.zone)
        return f"{local:%H:%M:%S}.{local.microsecond // 1000:03}"

    def iso(self, instant: datetime) -> str:
        """Returns the instant for machines."""
        return instant.isoformat(timespec="milliseconds")

    def relative(self, instant: datetime) -> Markup:
        """Returns the distance to now."""
        distance = instant - self.now
        if abs(distance) < timedelta(seconds=1):
            return self.language.text(_("now"))
        span = self.duration(abs(distance))
        if distance > timedelta(0):
            return self.language.text(_("in %(span)s"), span=span)
        return self.language.text(_("%(span)s ago"), span=span)

    def duration(self, span: timedelta) -> str:
        """Returns a duration by its two largest units. A negative one, from clocks that differ, is zero."""
        seconds = max(int(span.total_seconds()), 0)
        days, hours = divmod(seconds // _HOUR, _DAY // _HOUR)
        minutes, rest = seconds % _HOUR // _MINUTE, seconds % _MINUTE
        text = self.language.text
        if days:
            parts = [text(_("%(count)d d"), count=days), text(_("%(count)d h"), count=hours) if hours else ""]
        elif hours:
            parts = [text(_("%(count)d h"), count=hours), text(_("%(count)d min"), count=minutes) if minutes else ""]
        elif minutes:
            parts = [text(_("%(count)d min"), count=minutes), text(_("%(count)d s"), count=rest) if rest else ""]
        else:
            parts = [text(_("%(count)d s"), count=rest)]
        return " ".join(filter(None, parts))

    def number(self, value: float) -> str:
        """Returns a number with commas."""
        return f"{value:,}"

    def size(self, count: int) -> str:
        """Returns a number of bytes in a readable unit."""
        if count < _KIB:
            return f"{count} B"
        value, unit = count / _KIB, "KiB"
        if value >= _KIB:
            value, unit = value / _KIB, "MiB"
        return f"{value:.0f} {unit}" if unit == "KiB" else f"{value:.1f} {unit}"

    def percent(self, part: int, whole: int) -> str:
        """Returns a share; a dash for a share of nothing."""
        return f"{100 * part / whole:.1f}%" if whole else "–"
