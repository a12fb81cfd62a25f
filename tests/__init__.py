"""Tests of killick, laid out as the packages are."""
