"""Tests of what people look at: dashboards, alert rules, recording rules."""
