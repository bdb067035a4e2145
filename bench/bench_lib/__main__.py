"""Inside the machine: `python3 -m bench_lib TOPIC JSON` measures one topic and prints the figures as JSON."""

from __future__ import annotations

import importlib
import json
import sys

#: Topic -> "module:function"; the arguments come as a JSON object.
_TOPICS = {
    "installs": "bench_lib.installs:measure",
    "removal-prepare": "bench_lib.installs:prepare_removal",
    "removal": "bench_lib.installs:measure_removal",
    "switch": "bench_lib.switch:measure",
    "startup": "bench_lib.startup:measure",
    "service": "bench_lib.service:measure",
    "update-prepare": "bench_lib.update:prepare",
    "update": "bench_lib.update:measure",
    "update-plain-prepare": "bench_lib.update:prepare_plain",
    "update-plain": "bench_lib.update:measure_plain",
    "update-install": "bench_lib.update:measure_install",
    "update-plain-install": "bench_lib.update:measure_plain_install",
    "pull-prepare": "bench_lib.pull:prepare",
    "pull": "bench_lib.pull:measure",
    "pull-archives": "bench_lib.pull:archives_of",
    "image-follow": "bench_lib.imageupdate:follow",
    "image-keep": "bench_lib.imageupdate:keep",
    "image-live": "bench_lib.imageupdate:measure_live",
    "image-upgrade": "bench_lib.imageupdate:upgrade",
    "image-verify": "bench_lib.imageupdate:verify",
    "image-roll-back": "bench_lib.imageupdate:roll_back",
    "image-forget": "bench_lib.imageupdate:forget_upgrade",
    "image-plain-prepare": "bench_lib.imageupdate:prepare_plain",
    "image-plain": "bench_lib.imageupdate:measure_plain",
    "overlays-prepare": "bench_lib.overlays:prepare",
    "overlays-create": "bench_lib.overlays:create",
    "overlays": "bench_lib.overlays:measure",
    "overlays-sizes": "bench_lib.overlays:measure_sizes",
    "overlays-disk": "bench_lib.overlays:measure_disk",
    "memory": "bench_lib.memory:measure",
    "changes": "bench_lib.growth:measure_changes",
    "tree": "bench_lib.growth:measure_tree",
    "enlarge": "bench_lib.growth:enlarge_base",
    "enlarged": "bench_lib.growth:forget_old_base",
}


def main() -> None:
    """Run the topic that the command line names."""
    topic, arguments = sys.argv[1:]
    module, _, name = _TOPICS[topic].partition(":")
    print(json.dumps(getattr(importlib.import_module(module), name)(**json.loads(arguments))))


main()
