"""The sentences with which Ethereum clients refuse a transaction, and what each means."""

import pytest

from folkmoot.ledger.errors import LedgerRejected, NoFunds, NonceUsed, Underpriced
from folkmoot.ledger.refusals import explain_refusal, is_known
from folkmoot.ledger.rpc import RpcError

SENTENCES: list[tuple[str, type[LedgerRejected]]] = [
    ("nonce too low: next nonce 5, tx nonce 3", NonceUsed),  # geth, anvil, erigon
    ("OldNonce, Current nonce: 5, nonce of rejected tx: 3", NonceUsed),  # nethermind
    ("Nonce too low", NonceUsed),  # besu
    ("replacement transaction underpriced", Underpriced),
    ("transaction underpriced: gas tip cap 1, minimum needed 1000000", Underpriced),
    ("max fee per gas less than block base fee: address 0x1, maxFeePerGas: 1, baseFee: 7", Underpriced),
    ("FeeTooLow, FeePerGas too low. FeePerGas: 1, CurrentFee: 2", Underpriced),
    ("FeeTooLowToCompete", Underpriced),
    ("ReplacementNotAllowed", Underpriced),
    ("Gas price below configured minimum gas price", Underpriced),
    ("An existing transaction with a higher gas price is in the pool", Underpriced),
    ("insufficient funds for gas * price + value: balance 0, tx cost 1", NoFunds),
    ("Insufficient funds for gas * price + value", NoFunds),
    ("InsufficientFunds, Balance is 0 less than sending value", NoFunds),
    ("Upfront cost exceeds account balance", NoFunds),
    ("intrinsic gas too low", LedgerRejected),
    ("nonce too high (this chain has no queue): next nonce 1, tx nonce 3", LedgerRejected),
]


@pytest.mark.parametrize(("sentence", "kind"), SENTENCES)
def test_a_sentence_has_a_meaning(sentence: str, kind: type[LedgerRejected]) -> None:
    refusal = explain_refusal(RpcError(-32000, sentence))
    assert type(refusal) is kind
    assert refusal.reason == sentence and not refusal.stale
    assert not is_known(RpcError(-32000, sentence))


@pytest.mark.parametrize(
    "sentence", ["already known", "AlreadyKnown", "transaction already imported", "Known transaction"]
)
def test_a_transaction_that_the_node_has(sentence: str) -> None:
    assert is_known(RpcError(-32000, sentence))


@pytest.mark.parametrize("word", ["round", "previous", "quorum"])
def test_the_contract_s_own_word_comes_first(word: str) -> None:
    length, text = len(word).to_bytes(32, "big"), word.encode().ljust(32, b"\0")
    data = "0x08c379a0" + ((32).to_bytes(32, "big") + length + text).hex()
    refusal = explain_refusal(RpcError(3, f"execution reverted: {word}", data))
    assert refusal.reason == word and refusal.stale == (word != "quorum")
    assert explain_refusal(RpcError(3, "execution reverted", "0x1")).reason == "execution reverted"
