"""Feed damaged logs to every importer: nothing but named errors and quarantined rows may come out.

Starts from the valid samples of the tests and damages them, in their bytes or in the JSON values of their
lines. Prints what came of the inputs; ends with an error at the first that came out otherwise, which is kept.

    python benchmarks/fuzz_importers.py --inputs 100000
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.importers import FORMATS, ColumnMapping, import_logs
from fusion_integrations.logs.store import LogStore

SAMPLES = Path(__file__).parents[1] / "tests/fusion_integrations/logs/importers/samples.py"
COLUMNS = ColumnMapping(
    messages="messages", model="model", response="response", performance="performance", source_id="source_id"
)
INPUTS_PER_STORE = 500
ODD_TEXTS = (
    *("", " ", "\ud800", "\0", "NaN", "1e999", "true", "[]", "{}", '"'),
    *("[" * 2000, "2026-13-45", "é" * 50),
)
ODD_NUMBERS = (0, -1, 2**63, 10**400, 1e308, float("nan"), float("inf"), -0.0, 0.1)
SIGNS = (b'"', b"{", b"}", b"[", b"]", b",", b"\n", b"\\", b"\0")
KEYS = ("role", "content", "type", "text", "parts", "kwargs", "message", "x")


def load_samples() -> ModuleType:
    """Load the samples of the tests, which are no package."""
    spec = importlib.util.spec_from_file_location("importer_samples", SAMPLES)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(SAMPLES)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def odd_value(rng: random.Random, depth: int = 0) -> Any:
    """Make any JSON value, preferring those that trip parsers."""
    kinds = ["none", "truth", "number", "odd text", "text"]
    kind = rng.choice(kinds + (["list", "object"] if depth < 3 else []))
    if kind == "number":
        return rng.choice(ODD_NUMBERS)
    if kind == "odd text":
        return rng.choice(ODD_TEXTS)
    if kind == "text":
        return "".join(chr(rng.randrange(32, 1000)) for _ in range(rng.randrange(12)))
    if kind in ("list", "object"):
        parts = [odd_value(rng, depth + 1) for _ in range(rng.randrange(4))]
        return parts if kind == "list" else {rng.choice(KEYS): part for part in parts}
    return None if kind == "none" else rng.random() < 0.5


def changed(rng: random.Random, value: Any) -> Any:
    """Replace, remove or wrap one value somewhere inside."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {name: part for name, part in value.items() if name != key}
        return value | {key: changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        return [*value[:at], changed(rng, value[at]), *value[at + 1 :]]
    if isinstance(value, str) and value[:1] in ("{", "[") and rng.random() < 0.8:
        inner = parsed(value.encode(errors="surrogatepass"))
        return odd_value(rng) if inner is None else json.dumps(changed(rng, inner))
    return [value] if rng.random() < 0.1 else odd_value(rng)


def parsed(content: bytes) -> Any:
    """Read JSON; None if it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Damage a file once or a few times."""
    for _ in range(rng.randrange(1, 4)):
        content = damaged_once(rng, content)
    return content


def damaged_once(rng: random.Random, content: bytes) -> bytes:
    """Cut, overwrite, repeat, insert, or change a value of JSON; the last half of the time."""
    at = rng.randrange(len(content) + 1)
    kind = rng.choice(["cut", "overwrite", "repeat", "insert", *["value"] * 4])
    if kind == "value":
        lines = content.split(b"\n")
        which = rng.randrange(len(lines))
        if (value := parsed(lines[which])) is not None:
            lines[which] = json.dumps(changed(rng, value)).encode()
            return b"\n".join(lines)
        if (value := parsed(content)) is not None:
            return json.dumps(changed(rng, value)).encode()
        kind = "overwrite"
    if kind == "cut":
        return content[:at]
    if kind == "overwrite":
        return content[:at] + rng.randbytes(rng.randrange(1, 9)) + content[at + rng.randrange(9) :]
    if kind == "repeat":
        end = rng.randrange(at, len(content) + 1)
        return content[:end] + content[at:end] + content[end:]
    return content[:at] + rng.choice(SIGNS) + content[at:]


def seeds(samples: ModuleType, folder: Path) -> dict[str, tuple[Path, dict[Path, bytes]]]:
    """Write every format once; give back what to import and the files, relative to the format's folder."""
    found = {}
    for name, sample in samples.SAMPLES.items():
        place = folder / name
        place.mkdir()
        path = sample.write(place, [samples.Fact(), samples.Fact(number=2, query="And of Peru?")])
        files = {file.relative_to(place): file.read_bytes() for file in place.rglob("*") if file.is_file()}
        found[name] = (path.relative_to(place), files)
    return found


def run(name: str, path: Path, folder: Path, store: LogStore, join: str) -> Counter[str]:
    """Import one input; count what came of it. Whatever is no named error passes through."""
    aside = folder.parent / "aside.jsonl"
    aside.unlink(missing_ok=True)
    try:
        report = import_logs(
            name,
            path,
            store,
            columns=COLUMNS if FORMATS[name].takes_columns else None,
            join=folder / join if join else None,
            quarantine=aside,
        )
    except LogSchemaError as error:  # of the store and of missing packages none is to be expected
        return Counter({type(error).__name__: 1})
    n_dropped = sum(report.n_dropped.values())
    if report.n_rows != report.n_added + report.n_known + n_dropped + report.n_quarantined:
        raise AssertionError(f"rows were lost: {report}")
    return Counter(
        {
            "rows added": report.n_added + report.n_known,
            "rows dropped": n_dropped,
            "rows quarantined": report.n_quarantined,
        }
    )


def fuzz(n_inputs: int, *, seed: int) -> Counter[str]:
    """Import damaged inputs one after another; end the program at the first that comes out otherwise."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    samples = load_samples()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        valid = seeds(samples, Path(place))
        store = LogStore.open(":memory:")
        for number in range(n_inputs):
            if number % INPUTS_PER_STORE == 0:
                store.close()
                store = LogStore.open(":memory:")
            name = rng.choice(sorted(valid))
            path, files = valid[name]
            folder = Path(place) / name
            target = rng.choice(sorted(files))
            (folder / target).write_bytes(damaged(rng, files[target]))
            try:
                counts += run(name, folder / path, folder, store, samples.SAMPLES[name].join)
            except BaseException:
                kept = Path(f"fuzz-{name}-{seed}-{number}")
                shutil.copytree(folder, kept, dirs_exist_ok=True)
                traceback.print_exc()
                sys.exit(f"Input {number}, '{target}' of format '{name}', is kept in '{kept}'.")
            (folder / target).write_bytes(files[target])
        store.close()
    return counts


def main() -> None:
    """Fuzz the importers and print the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    counts = fuzz(arguments.inputs, seed=arguments.seed)
    if not counts["rows added"]:
        sys.exit("No row of any input was imported: this run has tested nothing.")
    seconds = time.monotonic() - started
    print(f"{arguments.inputs} inputs in {seconds:.0f} s, seed {arguments.seed}: no error without a name")
    for what, n in sorted(counts.items()):
        print(f"{n:>9} {what}")


if __name__ == "__main__":
    main()
