"""Who owes whom, and how it is paid: tariff, batches, ledger, orders, cheques, as values; `evm` alone knows a chain.

Owing and paying are two parts. `tariff` and `batch` say what is owed, by arithmetic that both sides run; `ledger` keeps
it; `cheque` pays it; `settlement` is the port to what makes a cheque good. `docs/protocol/payments.md` has the rules.
"""
