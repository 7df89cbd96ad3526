# Room for recomputes of views of some hundred million groups, spilling to disk.
environment = "production"
image_tag   = "0.1.0"
cpu         = 4096
memory_mib  = 16384
scratch_gib = 200
retention   = "48h"
