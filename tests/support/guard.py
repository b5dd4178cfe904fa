"""Time limit of a test's wait for an event: a guard against hanging, no synchronisation and no measurement.

Long enough for a machine that is busy with other work, where a server of a second's start takes thirty; shorter than
faulthandler_timeout of pyproject.toml, after which the whole run ends.
"""

HANG_GUARD_S = 120.0
