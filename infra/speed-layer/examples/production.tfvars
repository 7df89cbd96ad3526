# Two groups, so that one answers while the other is upgraded; each grows from one task to two.
environment = "production"
image_tag   = "0.1.0"
cpu         = 4096
memory_mib  = 30720
groups      = { a = {}, b = {} }
tasks       = { minimum = 1, maximum = 2 }
topics      = ["sales"]
lag         = { high = 100000, low = 1000 }
