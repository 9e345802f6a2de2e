"""Benchmarks: what is asked, how it is scored, and one harness that paints, judges, resumes and reports."""
