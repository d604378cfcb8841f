"""A study from the command line: one method over many prompts, every run kept where the app finds it.

    draftscope study --family path/to/target --draft path/to/draft --method dyspec --prompts questions.jsonl --most 80

The page Drafter shows the same study with the same settings, and the page Traces its runs. Resumable: the same command again makes
the runs that are missing.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from decoding.method import Method
from decoding.methods import METHODS
from decoding.models.chat import read_options
from decoding.models.ends import read_each
from decoding.runs.evaluate import check_template, chosen
from decoding.runs.many import merged, opened
from decoding.runs.options import add_cluster, add_ends, add_family, add_form, add_prompts, values_of
from decoding.runs.prompts import Prompt
from decoding.runs.run import check_limits
from decoding.runs.store import Store
from decoding.runs.study import Plan, Study, family_of_plan, results
from decoding.sample import Sampling
from decoding.trace import Step

TOLD = 10  # prompts without a result of which it is said why


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    try:
        studies = begun(options)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    study = studies[0]
    runs = len(study.plan.places)
    with tqdm(total=runs, initial=len(study.kept), desc="runs", mininterval=2) as bar:
        try:
            for _ in merged(studies):
                bar.update(len({number for one in studies for number in (*one.kept, *one.problems)}) - bar.n)
        except KeyboardInterrupt:
            sys.exit("Stopped. The same command goes on with the run that was under way.")
    study.problems = {number: why for one in studies for number, why in one.problems.items()}
    print(table(study), end="")
    print(f"Kept in {str(study.store.folder)!r}: study {study.plan.key}. The pages Drafter and Traces show it.")
    for number, why in list(study.problems.items())[:TOLD]:
        print(f"Without a result: {study.plan.names[number]}: {why}", file=sys.stderr)
    if len(study.problems) > TOLD:
        print(f"and {len(study.problems) - TOLD:,} more", file=sys.stderr)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--method", default="speculative_sampling", choices=list(METHODS), metavar="KEY", help="speculative_sampling"
    )
    parser.add_argument("--params", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="parameters of the method")
    parser.add_argument("--family", "--target", dest="target", default="embedded", help="embedded, smollm2, a folder or a Hub id")
    add_prompts(parser)
    add_form(parser)
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (1)")
    parser.add_argument("--top-k", type=int, default=0, help="0 is off (0)")
    parser.add_argument("--top-p", type=float, default=1.0, help="1 is off (1)")
    parser.add_argument("--seed", type=int, default=0, help="of the first prompt; every further one has the next (0)")
    parser.add_argument("--tokens", type=int, default=64, help="of every run at most (64)")
    parser.add_argument("--store", type=Path, help="folder of the kept traces; left out: the app's")
    add_ends(parser)
    add_family(parser)
    add_cluster(parser)
    return parser.parse_args(arguments)


def begun(options: argparse.Namespace) -> list[Study]:
    """The study that is asked for, with what is kept of it, one for each machine of a cluster; ValueError for what cannot be."""
    method: Method = METHODS[options.method]
    check_limits(options.tokens, options.seed)
    params = asdict(method.checked(values_of(method, options.params)))
    sampling = Sampling(options.temperature, options.top_k, options.top_p)
    template = read_options(options.template)
    stop = read_each(options.stop)
    store = Store(options.store)
    disable_progress_bar()
    places, known = opened((options.target, options.draft, options.device, options.dtype), [method.key], stop, options.cluster)
    if reason := known.missing[method.key]:
        raise ValueError(reason)
    chat = known.chats if options.chat is None else options.chat
    if chat and not known.chats:
        raise ValueError(f"The family {known.name} has no chat template; leave out --chat.")
    check_template(template, chat)
    found = chosen(options.prompts, options.most, chat)
    asked: tuple[Prompt, ...] = tuple(prompt for prompts in found.values() for prompt in prompts)
    plan = Plan(
        family_of_plan(options.target, options.draft, options.dtype),
        method.key,
        asked,
        params=params,
        sampling=sampling,
        seed=options.seed,
        max_tokens=options.tokens,
        chat=chat,
        template=template,
        stop=stop,
        ignore_end=options.ignore_end,
    )
    prompts_begun: set[int] = set()
    return [Study(place, plan, Store(store.folder), prompts_begun) for place in places]


def table(study: Study) -> str:
    """Markdown: one line per domain, and one for all."""
    found = [(domain, trace.steps) for _, _, domain, trace in results(study.store, study.plan)]
    lines = ["| | runs | tau | alpha, accepted of judged | accepted of drafted |", "|---" * 5 + "|"]
    for name in [*dict.fromkeys(domain for domain, _ in found), ""]:
        runs = [steps for domain, steps in found if name in ("", domain)]
        if runs:
            lines.append(f"| {name or 'all'} | {len(runs):,} | {' | '.join(figures(step for steps in runs for step in steps))} |")
    return "\n".join(lines) + "\n"


def figures(steps: Iterable[Step]) -> list[str]:
    """tau, alpha, and the share that engines log."""
    steps = list(steps)
    nodes = [node for step in steps for node in step.nodes]
    accepted = sum(node.verdict == "accepted" for node in nodes)
    judged = sum(node.verdict != "not judged" for node in nodes)
    shares = [f"{accepted / count:.3f}" if count else "–" for count in (judged, len(nodes))]
    return [f"{sum(len(step.tokens) for step in steps) / max(1, len(steps)):.2f}", *shares]


if __name__ == "__main__":
    main()
