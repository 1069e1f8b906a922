"""Data only: job files, messages, API operations, stored records. No decisions, no I/O."""
