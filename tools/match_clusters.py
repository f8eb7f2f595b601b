"""Match clusters to classes on training clips.

Reads the self-labels (COCO json of tools/generate_pseudo_labels.py) and the
``label`` of the same clips in their clip table, and writes the matchings that
``avdet_mm.MatchedCocoMetric`` reads. It is the only place where class labels
of training clips are used, and it never sees a test set.

All matchings of the paper's Table 5, in one file:
    python tools/match_clusters.py self_labels.json --clips train.json \\
        --method hungarian majority manual 1-shot 10-shot \\
        --label-map vggsound_representative --groups vggsound_groups \\
        --out matching.json
"""

import argparse
import json
import os
import sys
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from avdet_mm.datasets.metainfo import LabelMap, load_label_map
from avdet_mm.models.task_modules import ClusterMatcher
from avdet_mm.utils import file_sha256


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('self_labels', help='COCO json with the self-labels')
    parser.add_argument(
        '--clips', required=True, help='clip table of the training clips'
    )
    parser.add_argument(
        '--out', required=True, help='json file to write the matching to'
    )
    parser.add_argument(
        '--method',
        nargs='+',
        default=['hungarian'],
        help='hungarian, one to one (default); majority, many to one; '
        '<k>-shot, by the labels of the k most confident clips of each '
        'cluster; manual, by majority after --groups has merged the classes. '
        'Of several the first is the main one',
    )
    parser.add_argument(
        '--label-map',
        help='after matching, call the classes what this label map makes of '
        'them, as the test set does: vggsound_representative, say, or the '
        'path of a json. Clusters matched to other classes are dropped',
    )
    parser.add_argument(
        '--groups',
        help='label map that merges classes before manual matching, '
        'vggsound_groups, say',
    )
    parser.add_argument(
        '--allow-missing',
        action='store_true',
        help='clips that are not in the table count as clips without label '
        '(by default they are an error: the table could be a wrong one)',
    )
    args = parser.parse_args()
    if ('manual' in args.method) != (args.groups is not None):
        parser.error('--groups and --method manual need each other')
    return args


class Clips(NamedTuple):
    """Labeled clips.

    Attributes:
        clusters (list[int]): Their clusters.
        labels (list[str]): Their class names.
        scores (list[float], optional): Confidence in their clusters.
    """

    clusters: List[int]
    labels: List[str]
    scores: Optional[List[float]]


def read_json(path: str) -> dict:
    """Read a json file; errors say which file."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f'There is no file {path}.')
    with open(path, encoding='utf-8') as file:
        try:
            return json.load(file)
        except json.JSONDecodeError as error:
            raise ValueError(f'{path} is not valid json: {error}.') from error


def read_clusters(
    path: str,
) -> Tuple[Dict[str, Tuple[int, Optional[float]]], List[str]]:
    """Read the cluster of every clip from the self-labels.

    A clip with several boxes has the cluster of the box that scores best.

    Args:
        path (str): COCO json; ``images`` have a ``clip_id``.

    Returns:
        tuple: clip id -> cluster, numbered in the order of ``categories``,
        and its ``label_score`` where there is one; the names of the
        clusters.
    """
    coco = read_json(path)
    if not {'images', 'annotations', 'categories'} <= set(coco):
        raise ValueError(
            f'{path} is not a COCO json; expected what '
            'tools/generate_pseudo_labels.py wrote.'
        )
    if any('clip_id' not in image for image in coco['images']):
        raise ValueError(
            f'Images in {path} have no clip_id, so it was not '
            'written by tools/generate_pseudo_labels.py.'
        )
    clips = {image['id']: image['clip_id'] for image in coco['images']}
    numbers = {c['id']: k for k, c in enumerate(coco['categories'])}
    best: Dict[str, dict] = {}
    for ann in coco['annotations']:
        if ann.get('added'):  # By self-training: not what is heard.
            continue
        clip, score = clips[ann['image_id']], ann.get('score', 0.0)
        if clip not in best or score > best[clip].get('score', 0.0):
            best[clip] = ann
    if not best:
        raise ValueError(f'{path} has no annotations.')
    return (
        {
            clip: (numbers[ann['category_id']], ann.get('label_score'))
            for clip, ann in best.items()
        },
        [c['name'] for c in coco['categories']],
    )


def read_classes(path: str) -> Tuple[Dict[str, str], List[str]]:
    """Read the class of every clip from a clip table.

    Args:
        path (str): The table.

    Returns:
        tuple: clip id -> class name or None, and all class names.
    """
    table = read_json(path)
    if 'data_list' not in table:
        raise ValueError(f'{path} is not a clip table: it has no data_list.')
    labels = {
        clip['clip_id']: clip.get('label') for clip in table['data_list']
    }
    found = sorted({label for label in labels.values() if label is not None})
    if not found:
        raise ValueError(
            f'No clip in {path} has a label, so clusters cannot be matched '
            'to classes. Add "label" to some training clips.'
        )
    classes = table.get('metainfo', {}).get('classes') or found
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise ValueError(
            f'{path} has labels that its metainfo does not list '
            f'as classes: {", ".join(unknown)}.'
        )
    return labels, list(classes)


def main() -> None:
    """Run the tool."""
    args = parse_args()
    clusters, cluster_names = read_clusters(args.self_labels)
    labels, classes = read_classes(args.clips)
    unknown = [clip for clip in clusters if clip not in labels]
    if unknown and not args.allow_missing:
        raise ValueError(
            f'{len(unknown)} of {len(clusters)} clips in {args.self_labels} '
            f'are not in {args.clips} (such as {unknown[0]!r}): the table '
            'belongs to other clips. Give the one that the self-labels were '
            'generated from, or --allow-missing.'
        )
    known = [clip for clip in clusters if labels.get(clip) is not None]
    if not known:
        raise ValueError(
            f'None of the {len(clusters)} clips in {args.self_labels} has a '
            f'label in {args.clips}.'
        )
    scores = [clusters[clip][1] for clip in known]
    clips = Clips(
        [clusters[clip][0] for clip in known],
        [labels[clip] for clip in known],
        None if None in scores else scores,
    )
    tests, groups = (
        name and load_label_map(name) for name in (args.label_map, args.groups)
    )
    for name, names in ((args.label_map, tests), (args.groups, groups)):
        if names and not any(names.target_of(c) for c in classes):
            raise ValueError(
                f'The label map {name} has none of the classes of '
                f'{args.clips}.'
            )
    named = tests or groups
    targets = list(named.classes) if named else classes
    if tests and groups and set(tests.classes) != set(groups.classes):
        raise ValueError(
            f'The label maps {args.label_map} and {args.groups} must have '
            'the same classes, those of the test set.'
        )
    matchers = [
        fit(method, clips, classes, len(cluster_names), targets, tests, groups)
        for method in args.method
    ]
    main_matcher, *others = matchers
    main_matcher.to_json(
        args.out,
        targets,
        info=dict(
            self_labels=args.self_labels,
            self_labels_sha256=file_sha256(args.self_labels),
            clips=args.clips,
            label_map=args.label_map,
            groups=args.groups,
            num_clips=len(known),
            num_clips_without_label=len(clusters) - len(known),
        ),
        others=others,
    )
    show(main_matcher, cluster_names, targets)
    for matcher in others:
        differ = (matcher.matching != main_matcher.matching).sum()
        print(f'{summary(matcher)}; {differ} clusters are matched differently')
    print(f'Wrote {args.out}')


def fit(
    method: str,
    clips: Clips,
    classes: List[str],
    num_clusters: int,
    targets: List[str],
    tests: Optional[LabelMap],
    groups: Optional[LabelMap],
) -> ClusterMatcher:
    """Match by one method.

    Args:
        method (str): Of :class:`ClusterMatcher`.
        clips (Clips): The labeled clips.
        classes (list[str]): Their classes.
        num_clusters (int): K.
        targets (list[str]): Classes of the test set.
        tests (LabelMap, optional): Classes to those of the test set, after
            matching.
        groups (LabelMap, optional): The same before manual matching.

    Returns:
        ClusterMatcher: Matches clusters to ``targets``.
    """
    matcher = ClusterMatcher(method)
    if method == 'manual':
        group = {c: groups.target_of(c) for c in classes}
        kept = [i for i, c in enumerate(clips.labels) if group[c]]
        return matcher.fit(
            [clips.clusters[i] for i in kept],
            [targets.index(group[clips.labels[i]]) for i in kept],
            num_clusters,
            len(targets),
        )
    index = {c: i for i, c in enumerate(classes)}
    matcher.fit(
        clips.clusters,
        [index[c] for c in clips.labels],
        num_clusters,
        len(classes),
        clips.scores,
    )
    if targets is classes:
        return matcher
    found = [tests.target_of(c) if tests else c for c in classes]
    return matcher.rename(
        [targets.index(c) if c in targets else -1 for c in found],
        len(targets),
    )


def show(
    matcher: ClusterMatcher, cluster_names: List[str], classes: List[str]
) -> None:
    """Print a matching."""
    for k, c in enumerate(matcher.matching):
        row = matcher.contingency[k]
        name = classes[c] if c >= 0 else '(no class)'
        share = f'{row[c]} of {row.sum()} clips' if c >= 0 else ''
        print(f'{cluster_names[k]:<12} {name:<24} {share}')
    print(summary(matcher))


def summary(matcher: ClusterMatcher) -> str:
    """How well a matching fits the labels that it has read."""
    rows = np.flatnonzero(matcher.matching >= 0)
    agree = matcher.contingency[rows, matcher.matching[rows]].sum()
    return (
        f'{matcher.method}: {agree} of the {matcher.contingency.sum()} labels '
        'that were read agree'
    )


if __name__ == '__main__':
    try:
        main()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'error: {error}')
