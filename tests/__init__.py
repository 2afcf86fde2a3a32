"""Tests, and what they share with benchmarks; the top folder is on the path, see pyproject.toml."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
