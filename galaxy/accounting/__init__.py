"""Accounting: resources integrated over time, and reports and bills of them; pure."""
