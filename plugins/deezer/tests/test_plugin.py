from __future__ import annotations

import subprocess
import sys


def test_importing_the_plugin_imports_no_heavy_library():
    code = (
        "import sys, captum_concepts_deezer, captum_concepts_deezer.plugin as p;"
        "assert 'torch' not in sys.modules, 'torch';"
        "p.captum_concepts_backbones(); p.captum_concepts_concept_sources();"
        "import captum_concepts_deezer.cavs;"
        "assert not {'h5py', 'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
