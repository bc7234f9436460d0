"""The public record: the contract, the adapters that reach it, and the audit."""
