"""Classes of the public data sets and how they map to each other."""
import json
import os.path as osp
from importlib import resources
from typing import Dict, List, NamedTuple, Optional, Tuple

_FOLDER = resources.files('avdet_mm.datasets.label_maps')


class LabelMap(NamedTuple):
    """Classes of a data set, and the names that stand for them.

    Attributes:
        classes (tuple[str]): Names in their fixed order.
        mapping (dict[str, str]): Names of another data set to classes, many
            to one; empty for a plain list of classes.
        aliases (dict[str, str]): Other spellings of names of the data set
            (``classes``, or keys of ``mapping``), as in the paper's tables.
        notes (dict[str, str]): Names whose place is a guess, and why.
        about (str): What it is and where it is from.
    """
    classes: Tuple[str, ...]
    mapping: Dict[str, str]
    aliases: Dict[str, str]
    notes: Dict[str, str]
    about: str

    def target_of(self, name: str) -> Optional[str]:
        """The class that a name stands for.

        Args:
            name (str): A class, a key of ``mapping``, or an alias of either.

        Returns:
            str, optional: The class; None for a name that is not known.
        """
        name = self.aliases.get(name, name)
        name = self.mapping.get(name, name)
        return name if name in self.classes else None


def label_map_names() -> List[str]:
    """Names that :func:`load_label_map` knows."""
    return sorted(f.name[:-len('.json')] for f in _FOLDER.iterdir()
                  if f.name.endswith('.json'))


def load_label_map(name: str) -> LabelMap:
    """Load a label map.

    Args:
        name (str): Name of a map of the package (``label_map_names()``
            lists them), or path of a json like those in
            ``avdet_mm/datasets/label_maps``: the attributes of
            :class:`LabelMap` as keys, of which only ``classes`` has to be
            there. Copy one to group classes differently.

    Returns:
        LabelMap: The map.

    Raises:
        FileNotFoundError: If there is no such map or file.
        ValueError: If the file is no label map.

    Example:
        >>> load_label_map('vggsound_groups').mapping['tapping guitar']
        'Guitar'
    """
    if name in label_map_names():
        text = (_FOLDER / f'{name}.json').read_text(encoding='utf-8')
    elif osp.isfile(name):
        with open(name, encoding='utf-8-sig') as file:
            text = file.read()
    else:
        raise FileNotFoundError(
            f'There is no label map {name!r}; it is neither a file nor one '
            f'of {", ".join(label_map_names())}.')
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f'{name} is no valid json ({error}).') from error
    return _parse(content, name)


def _parse(content: dict, name: str) -> LabelMap:
    """Check the content of a label map."""
    if not isinstance(content, dict) or not content.get('classes'):
        raise ValueError(f'{name} is no label map; expected is a json with '
                         'the key "classes", a list of names.')
    unknown = content.keys() - set(LabelMap._fields)
    if unknown:
        raise ValueError(f'{name} has the keys {sorted(unknown)}, which a '
                         f'label map has not ({", ".join(LabelMap._fields)}'
                         ').')
    classes = tuple(content['classes'])
    if len(set(classes)) < len(classes):
        twice = sorted({c for c in classes if classes.count(c) > 1})
        raise ValueError(f'{name} lists {twice[0]!r} twice.')
    mapping = content.get('mapping', {})
    aliases = content.get('aliases', {})
    notes = content.get('notes', {})
    for source, target in mapping.items():
        if target not in classes:
            raise ValueError(f'{name} maps {source!r} to {target!r}, which '
                             'is none of its classes.')
    known = set(classes) | mapping.keys()
    for spelling in list(aliases.values()) + list(notes):
        if spelling not in known:
            raise ValueError(f'{name} mentions {spelling!r}, which is none '
                             'of its names.')
    return LabelMap(classes, mapping, aliases, notes,
                    content.get('about', ''))
