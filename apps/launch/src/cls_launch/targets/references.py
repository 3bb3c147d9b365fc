"""Keep services that run containers from replacing `$(NAME)` in arguments and variables."""

import re

_DOLLARS = re.compile(r"\$+(?=\()|\${2,}|\$(?=[^\x00-\x7f])")


def escape_references(text: str) -> str:
    """Return the text from which Kubernetes and Vertex AI make `text`.

    They replace `$(NAME)` by the value of a variable, and `$$` by `$`. Kubernetes also reads the
    character after a lone `$` as one byte, which destroys one that has several:
    https://github.com/kubernetes/kubernetes/blob/master/third_party/forked/golang/expansion/expand.go
    """
    return _DOLLARS.sub(lambda match: 2 * match[0], text)
