"""Tests of the package `consumers`."""
