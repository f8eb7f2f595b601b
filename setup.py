"""Packaging of avdet_mm; needs nothing but setuptools."""
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Reads the version without importing the package."""
    text = (ROOT / 'avdet_mm' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '(.+)'", text, re.MULTILINE).group(1)


def read_requirements(name: str) -> list:
    """Reads the lines of a requirements file, comments left out."""
    text = (ROOT / 'requirements' / name).read_text(encoding='utf-8')
    return [
        line.strip() for line in text.splitlines()
        if line.strip() and not line.startswith('#')
    ]


def read_readme() -> str:
    """Reads the README where there is one."""
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.exists() else ''


setup(
    name='avdet_mm',
    version=read_version(),
    description='Object detectors learned from unlabeled video: '
    'an MMDetection extension',
    long_description=read_readme(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['avdet_mm', 'avdet_mm.*']),
    include_package_data=True,
    python_requires='>=3.9',
    install_requires=read_requirements('runtime.txt'),
    extras_require={
        'tests': read_requirements('tests.txt') +
        read_requirements('eval.txt'),
        'ray': read_requirements('ray.txt'),
        'eval': read_requirements('eval.txt'),
        # Only to convert SimCLR's checkpoints; too large for 'all'.
        'tf': read_requirements('tf.txt'),
        'all': [
            line for name in ('tests', 'eval', 'ray')
            for line in read_requirements(f'{name}.txt')
        ],
    },
    zip_safe=False,
)
