"""The networks behind the points: drawings and genotypes, packed small enough that hundreds of them fit into the page."""

import base64
import gzip
import json
from dataclasses import dataclass

from reports.figures.architectures import drawing_svg
from reports.load import Loaded
from spaces.errors import InputError
from spaces.registry import SPACES, architecture_from_json
from spaces.space import Edge

DRAWINGS = 60  # of the page: about 6 KB and 0.13 s each
LONGEST = 20_000  # characters of a genotype that are shown


@dataclass
class Network:
    """An architecture of the records, once for all finalists that are equal to it."""

    number: int
    key: str
    architecture: object  # as the record has it, which may be anything
    places: list[str]  # run, finalist and drawing file of each
    rank: int  # 0: on a front, 1: the best of its run, 2: another
    svg: str = ""  # packed; "" where it is not drawn


def networks(loaded: Loaded, on_front: set[tuple[str, int]]) -> dict[tuple[str, int], Network]:
    """(Run's name, number of the finalist) → its network. ``on_front`` are the finalists to draw first."""
    found: dict[str, Network] = {}
    by_finalist: dict[tuple[str, int], Network] = {}
    for run in loaded.runs:
        for number, best in zip(run.finalists["finalist"], run.finalists["best"]):
            number = int(number)
            finalist = run.record.finalists[number - 1]
            data = finalist.architecture
            content = json.dumps([finalist.key, data], sort_keys=True)
            network = found.setdefault(content, Network(len(found), finalist.key, data, [], 2))
            network.rank = min(network.rank, 0 if (run.name, number) in on_front else 1 if best else 2)
            network.places.append(f"run {run.name}, finalist {number} (finalist{number}.svg)")
            by_finalist[run.name, number] = network
    chosen = sorted(found.values(), key=lambda network: (network.rank, network.number))[:DRAWINGS]
    for network in chosen:
        svg = drawing_svg(network.architecture)  # None for what is no architecture or too large to draw
        network.svg = packed(svg) if svg else ""
    return by_finalist


def details(network: Network) -> dict[str, object]:
    """What the page shows beside a drawing: the genotype edge by edge and as text, and where it comes from."""
    text = json.dumps(network.architecture)
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]} … (cut here; the record has all of it)"
    return {"key": network.key, "edges": edges(network.architecture), "text": text, "places": network.places}


def packed(text: str) -> str:
    """gzip, then base64: the page unpacks it with DecompressionStream."""
    return base64.b64encode(gzip.compress(text.encode(errors="backslashreplace"), mtime=0)).decode()


def edges(data: object) -> list[Edge]:
    """The genotype of an architecture in its JSON form, edge by edge; empty where it is none."""
    try:
        architecture = architecture_from_json(data)
        return SPACES[architecture.space].edges(architecture)
    except (InputError, TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError):
        return []


def multipliers(data: object) -> list[str]:
    """The names of an architecture's circuits, most edges first; empty where it is none."""
    used = [multiplier for *_, multiplier in edges(data) if multiplier]
    return sorted(set(used), key=lambda name: (-used.count(name), name))
