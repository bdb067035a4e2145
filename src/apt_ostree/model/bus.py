"""The names of the service on the system bus."""

from __future__ import annotations

NAME = "org.debian.aptostree1"
PATH = "/org/debian/aptostree1"
QUERIES = "org.debian.aptostree1.Queries"
#: The object that makes transactions; each of them is an object below it.
TRANSACTIONS_PATH = f"{PATH}/transactions"
TRANSACTIONS = "org.debian.aptostree1.Transactions"
TRANSACTION = "org.debian.aptostree1.Transaction"


def path_of(transaction: int) -> str:
    """Return the object of a transaction."""
    return f"{TRANSACTIONS_PATH}/{transaction}"
