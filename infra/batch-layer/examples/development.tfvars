# One small task, that does not run at night nor at weekends.
environment = "development"
image_tag   = "0.1.0"
cpu         = 512
memory_mib  = 4096
scratch_gib = 21
flush_age   = "5s"

schedules = {
  evening = { cron = "cron(0 19 * * ? *)", timezone = "Europe/Berlin", tasks = 0 }
  morning = { cron = "cron(0 7 ? * MON-FRI *)", timezone = "Europe/Berlin", tasks = 1 }
}
