"""One node of a testnet as a process."""

import sys

from folkmoot.node.passphrase import FILE_VARIABLE
from folkmoot.testnet.home import TestnetHome
from folkmoot.testnet.processes import Child


def start_node(home: TestnetHome, name: str) -> Child:
    """Run the daemon of the node called `name`; raises `TestnetError` if it cannot be started."""
    node = home.node(name)
    node.address.unlink(missing_ok=True)  # nobody may call where an earlier run listened
    return Child.start(
        name,
        [sys.executable, "-m", "folkmoot.node.cli", "run", "--home", str(node.path)],
        node.logs / "output.log",
        environment={FILE_VARIABLE: str(home.passphrase(name))},
    )
