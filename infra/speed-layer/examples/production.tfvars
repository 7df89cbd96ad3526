# Two groups, so that one answers while the other is upgraded; each grows from two tasks to four.
environment = "production"
image_tag   = "0.1.0"
cpu         = 2048
memory_mib  = 16384
groups      = { a = {}, b = {} }
tasks       = { minimum = 2, maximum = 4 }
topics      = ["sales"]
lag         = { high = 100000, low = 1000 }
