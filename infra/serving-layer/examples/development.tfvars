# One small task, reached from inside the network only.
environment     = "development"
image_tag       = "0.1.0"
certificate_arn = "arn:aws:acm:eu-west-1:123456789012:certificate/11111111-2222-3333-4444-555555555555"
cpu             = 512
memory_mib      = 4096
scratch_gib     = 21
internal        = true
client_cidrs    = ["10.0.0.0/8"]
tasks           = { minimum = 1, maximum = 2 }
protect         = false
