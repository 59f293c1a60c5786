"""The commands of `clipcap`, a module each. They import torch only when they run, so that
`clipcap --help` answers at once."""
