"""Bulk requests, partial files and addresses, without a network."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.node.network import bulk
from folkmoot.node.network.addresses import AddressBook, peer_id_of
from folkmoot.node.network.partial import PartialBlob
from folkmoot.node.network.port import NetworkError
from folkmoot.protocol import blob, merkle
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError

ROOT = bytes(range(32))
A, B = (
    "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5",
    "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq",
)


@pytest.mark.parametrize(
    "request_",
    [bulk.LeavesRequest(ROOT), bulk.ChunksRequest(ROOT, 0, 1), bulk.ChunksRequest(ROOT, 2**32 - 1, 4)],
)
def test_requests_round_trip(request_: bulk.Request) -> None:
    data = bulk.encode_request(request_)
    assert len(data) == bulk.REQUEST_SIZE
    assert bulk.decode_request(data) == request_


@given(st.binary(max_size=60) | st.binary(min_size=41, max_size=41))
def test_a_request_is_decoded_strictly_or_refused(data: bytes) -> None:
    try:
        request = bulk.decode_request(data)
    except RemoteProtocolError:
        return
    assert bulk.encode_request(request) == data


@given(st.sets(st.integers(0, 200)))
def test_runs_cover_exactly_what_is_missing(missing: set[int]) -> None:
    runs = list(bulk.runs_of(sorted(missing)))
    assert [index for first, count in runs for index in range(first, first + count)] == sorted(missing)
    assert all(1 <= count <= bulk.MAX_RUN for _, count in runs)


def test_a_run_s_bytes_end_with_the_blob() -> None:
    size = 5 * blob.CHUNK + 7
    assert bulk.run_bytes(size, 0, 4) == 4 * blob.CHUNK
    assert bulk.run_bytes(size, 4, 2) == blob.CHUNK + 7
    assert bulk.run_bytes(size, 5, 1) == 7


def test_leaves_are_known_for_small_blobs_and_impossible_references_refused() -> None:
    assert bulk.known_leaves(BlobRef(merkle.EMPTY_ROOT, 0)) == []
    assert bulk.known_leaves(BlobRef(ROOT, 1)) == [ROOT]
    assert bulk.known_leaves(BlobRef(ROOT, blob.CHUNK + 1)) is None
    for ref in [BlobRef(ROOT, 0), BlobRef(ROOT, -1), BlobRef(ROOT, bulk.MAX_BLOB + 1), BlobRef(b"short", 5)]:
        with pytest.raises(LocalProtocolError):
            bulk.known_leaves(ref)


def test_leaves_must_fold_to_the_root() -> None:
    leaves = [merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")]
    ref = BlobRef(merkle.root(leaves), blob.CHUNK + 1)
    assert bulk.decode_leaves(ref, b"".join(leaves)) == leaves
    with pytest.raises(RemoteProtocolError, match="do not fold"):
        bulk.decode_leaves(ref, b"".join(reversed(leaves)))


def test_a_partial_file_keeps_only_verified_chunks(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(2 * blob.CHUNK + 5)
    chunks = [data[: blob.CHUNK], data[blob.CHUNK : 2 * blob.CHUNK], data[2 * blob.CHUNK :]]
    leaves = [merkle.leaf_hash(chunk) for chunk in chunks]
    destination = tmp_path / "blob"
    # What an earlier try left: a good chunk, a damaged one, and bytes past the end.
    (tmp_path / "blob.partial").write_bytes(chunks[0] + bytes(blob.CHUNK) + b"longer than the blob")
    with PartialBlob(blob.ref_of(data), leaves, destination) as partial:
        assert partial.missing() == [1, 2]
        with pytest.raises(RemoteProtocolError, match="chunk 1"):
            partial.write(1, chunks[0])
        partial.write(2, chunks[2])
        partial.write(1, chunks[1])
        assert partial.missing() == [] and not destination.exists()
        partial.finish()
    assert destination.read_bytes() == data
    assert list(tmp_path.iterdir()) == [destination]


def test_the_address_book_reads_files_again_and_puts_news_first(tmp_path: Path) -> None:
    file = tmp_path / "address"
    given_ = f"/dns4/node.example/tcp/9/p2p/{A}"
    book = AddressBook({0: A, 1: B}, [str(file), given_])
    assert book.addresses(0) == [given_]
    file.write_text(f"/ip4/127.0.0.1/tcp/1/p2p/{A}\n")
    assert book.addresses(0) == [f"/ip4/127.0.0.1/tcp/1/p2p/{A}", given_]
    file.write_text(f"/ip6/::1/tcp/2/p2p/{A}\n/ip4/127.0.0.1/tcp/3/p2p/{B}\nnonsense\n")
    assert book.addresses(0) == [f"/ip6/::1/tcp/2/p2p/{A}", given_]
    assert book.addresses(1) == [f"/ip4/127.0.0.1/tcp/3/p2p/{B}"]


def test_what_a_member_announces_is_tried_first_and_may_not_lead_to_this_host() -> None:
    said = ["/ip4/127.0.0.1/tcp/4", "/ip4/10.0.0.1/tcp/4"]
    given_ = f"/ip4/10.0.0.2/tcp/5/p2p/{A}"
    far = AddressBook({0: A}, [given_], lambda peer: said if peer == A else [], same_host=False)
    assert far.addresses(0) == [f"/ip4/10.0.0.1/tcp/4/p2p/{A}", given_]
    near = AddressBook({0: A, 1: B}, [given_], lambda peer: said if peer == A else [])
    assert near.addresses(0) == [*(f"{one}/p2p/{A}" for one in said), given_]
    assert near.addresses(1) == []


def test_a_name_that_a_member_announced_may_not_lead_where_its_address_might_not() -> None:
    given_, said = f"/dns4/here.example/tcp/5/p2p/{A}", f"/dns4/there.example/tcp/5/p2p/{A}"
    far = AddressBook({0: A}, [given_], lambda peer: [said], same_host=False)
    for host in ("127.0.0.1", "0.0.0.0", "169.254.169.254"):
        place = f"/ip4/{host}/tcp/5/p2p/{A}"
        assert not far.believes(said, place)
        assert far.believes(given_, place) and far.believes(place, place)
    assert far.believes(said, f"/ip4/192.0.2.1/tcp/5/p2p/{A}")
    assert AddressBook({0: A}, []).believes(said, f"/ip4/127.0.0.1/tcp/5/p2p/{A}")


def test_a_malformed_bootstrap_address_is_not_taken_for_a_path() -> None:
    with pytest.raises(NetworkError, match="/p2p/PEER_ID"):
        AddressBook({0: A}, ["/ip4/127.0.0.1/tcp/9"])


@given(st.text(max_size=80))
def test_peer_id_of_any_text(text: str) -> None:
    assert peer_id_of(text) is None
