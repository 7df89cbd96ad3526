# One group of one task: an upgrade has answers wait for the rebuild.
environment = "development"
image_tag   = "0.1.0"
cpu         = 512
memory_mib  = 4096
groups      = { a = {} }
tasks       = { minimum = 1, maximum = 2 }
