variable "region" {
  description = "AWS region, the foundation's."
  type        = string
  default     = "eu-west-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "The region must look like `eu-west-1`."
  }
}

variable "environment" {
  description = "Name of the deployment, the foundation's: the path of the parameters that are read."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,14}[a-z0-9]$", var.environment))
    error_message = "The environment must be 2 to 16 lower-case letters, digits and hyphens, beginning with a letter, such as `production`."
  }
}

variable "tags" {
  description = "Tags of every resource, beside `project`, `environment` and `layer`."
  type        = map(string)
  default     = {}
}

variable "image_tag" {
  description = "Tag of the image to run. Tags are never moved, so one version is one tag."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", var.image_tag)) && var.image_tag != "latest"
    error_message = "The tag must be letters, digits, `_`, `.` and `-`, and name one version: `latest` does not."
  }
}

variable "cpu" {
  description = "CPU units of a task: 1024 are one."
  type        = number
  default     = 2048

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096, 8192, 16384], var.cpu)
    error_message = "AWS Fargate has tasks of 256, 512, 1024, 2048, 4096, 8192 and 16384 CPU units."
  }
}

variable "memory_mib" {
  description = "Memory of a task, in MiB."
  type        = number
  default     = 8192

  validation {
    condition = anytrue([
      var.cpu == 256 && contains([512, 1024, 2048], var.memory_mib),
      var.cpu == 512 && contains(range(1024, 4097, 1024), var.memory_mib),
      var.cpu == 1024 && contains(range(2048, 8193, 1024), var.memory_mib),
      var.cpu == 2048 && contains(range(4096, 16385, 1024), var.memory_mib),
      var.cpu == 4096 && contains(range(8192, 30721, 1024), var.memory_mib),
      var.cpu == 8192 && contains(range(16384, 61441, 4096), var.memory_mib),
      var.cpu == 16384 && contains(range(32768, 122881, 8192), var.memory_mib),
    ])
    error_message = "AWS Fargate has no task of ${var.cpu} CPU units with ${var.memory_mib} MiB: see its table of task sizes."
  }
}

variable "scratch_gib" {
  description = "Disk of a task, in GiB, for what does not fit its memory."
  type        = number
  default     = 50

  validation {
    condition     = var.scratch_gib >= 21 && var.scratch_gib <= 200 && floor(var.scratch_gib) == var.scratch_gib
    error_message = "AWS Fargate gives a task 21 to 200 GiB of disk."
  }
}

variable "settings" {
  description = "Any other setting of the layer, by its environment variable, such as `LAMINA_BATCH__FLUSH_ROWS`."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^(LAMINA|RUST|OTEL)_[A-Z0-9_]+$", name))])
    error_message = "A setting's name begins with `LAMINA_`, `RUST_` or `OTEL_` and is in capitals."
  }

  validation {
    condition     = length(setintersection(keys(var.settings), ["LAMINA_SECRET", "LAMINA_TOKENS", "LAMINA_TLS__KEY", "LAMINA_KAFKA_SASL_PASSWORD"])) == 0
    error_message = "Secrets do not belong into a task's environment: they come out of AWS Secrets Manager."
  }
}

variable "catalog" {
  description = "Folder of the catalog's SQL files."
  type        = string
  default     = "../../examples/sales"

  validation {
    condition     = length(fileset(var.catalog, "*.sql")) > 0
    error_message = "There is no `.sql` file in the catalog's folder."
  }
}

variable "memory_share" {
  description = "Share of a task's memory that recomputes may use before they spill to its disk."
  type        = number
  default     = 0.6

  validation {
    condition     = var.memory_share >= 0.1 && var.memory_share <= 0.8
    error_message = "The share must be from 0.1 to 0.8: the rest is for everything else that the process does."
  }
}

variable "flush_age" {
  description = "How old an event may become before it is in the master dataset."
  type        = string
  default     = "30s"

  validation {
    condition     = can(regex("^[1-9][0-9]*(ms|s|m|h)$", var.flush_age))
    error_message = "The age must be a number with its unit, such as `30s`."
  }
}

variable "flush_bytes" {
  description = "How many bytes of events are flushed to the master dataset at the latest."
  type        = string
  default     = "64MiB"

  validation {
    condition     = can(regex("^[1-9][0-9]*(B|KiB|MiB|GiB)$", var.flush_bytes))
    error_message = "The size must be a number with its unit, such as `64MiB`."
  }
}

variable "retention" {
  description = "How long files that nothing needs any more are kept: longer than the longest query and recompute."
  type        = string
  default     = "24h"

  validation {
    condition     = can(regex("^[1-9][0-9]*(m|h|d)$", var.retention))
    error_message = "The time must be a number with its unit, such as `24h`."
  }
}

variable "schedules" {
  description = "When the layer is stopped (0 tasks) and started again (1), by name: for deployments that are not used at night. The log keeps what comes in meanwhile. (How often views are recomputed is in the catalog: `refresh`.)"
  type = map(object({
    cron     = string
    timezone = optional(string, "UTC")
    tasks    = number
  }))
  default = {}

  validation {
    condition = alltrue([
      for schedule in values(var.schedules) : anytrue([
        # Minutes, hours, then either day of month and month, or month and day of week; and years.
        can(regex("^cron\\([0-9*,/-]+ [0-9*,/-]+ [0-9*,/LW-]+ [0-9A-Z*,/-]+ \\? [0-9*,/-]+\\)$", schedule.cron)),
        can(regex("^cron\\([0-9*,/-]+ [0-9*,/-]+ \\? [0-9A-Z*,/-]+ [0-9A-Z*,/#-]+ [0-9*,/-]+\\)$", schedule.cron)),
      ])
    ])
    error_message = "A schedule must be an AWS cron expression of six fields, with `?` for one of day of month and day of week, such as `cron(0 20 ? * MON-FRI *)`."
  }

  validation {
    condition = alltrue(flatten([
      for schedule in values(var.schedules) : [
        for field, most in [59, 23] : [
          for number in regexall("[0-9]+", try(split(" ", trimprefix(schedule.cron, "cron("))[field], "")) : tonumber(number) <= most
        ]
      ]
    ]))
    error_message = "A schedule's minutes go to 59 and its hours to 23."
  }

  validation {
    condition     = alltrue([for schedule in values(var.schedules) : contains([0, 1], schedule.tasks)])
    error_message = "There is one task or none: a second one would only be in the first one's way."
  }

  validation {
    condition     = alltrue([for schedule in values(var.schedules) : can(regex("^(UTC|[A-Z][A-Za-z_]+/[A-Za-z_/+-]+[0-9]*)$", schedule.timezone))])
    error_message = "A time zone must be `UTC` or a name such as `Europe/Berlin`."
  }
}

variable "alarm_actions" {
  description = "ARNs of what is told when events are not archived any more, such as an SNS topic."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for action in var.alarm_actions : startswith(action, "arn:")])
    error_message = "An action is an ARN, such as that of an SNS topic."
  }
}
