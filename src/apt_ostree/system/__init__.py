"""Adapters: one module for each external thing; foreign types, exceptions and quirks stop here."""
