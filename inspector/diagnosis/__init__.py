"""Says what is wrong with a run, where, since when, why, and what to do about it."""

from inspector.diagnosis.finding import Evidence, Finding, Remedy
from inspector.diagnosis.findings import diagnose
from inspector.diagnosis.registry import all_rules, register, thresholds

__all__ = ["Evidence", "Finding", "Remedy", "all_rules", "diagnose", "register", "thresholds"]
