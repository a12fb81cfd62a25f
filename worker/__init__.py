"""Top floor: processes and people; the only floor with entry points."""
