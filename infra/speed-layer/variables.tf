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
  default     = 16384

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

variable "settings" {
  description = "Any other setting of the layer, by its environment variable, such as `LAMINA_SPEED__LINGER`."
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

variable "groups" {
  description = "Consumer groups, by name. Each keeps all partitions, so with two the one answers while the other is upgraded or rebuilt. `image_tag` gives a group another image than the rest: upgrade one group after the other."
  type = map(object({
    image_tag = optional(string)
  }))
  default = { a = {}, b = {} }

  validation {
    condition     = length(var.groups) >= 1 && length(var.groups) <= 3
    error_message = "There must be one to three groups."
  }

  validation {
    condition     = alltrue([for group in keys(var.groups) : can(regex("^[a-z][a-z0-9]{0,7}$", group))])
    error_message = "A group's name must be 1 to 8 lower-case letters and digits, beginning with a letter."
  }

  validation {
    condition     = alltrue([for group in values(var.groups) : try(can(regex("^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", group.image_tag)) && group.image_tag != "latest", false) || group.image_tag == null])
    error_message = "A group's tag must name one version, as `image_tag` does."
  }
}

variable "tasks" {
  description = "How many tasks a group has at least and at most. More than a topic has partitions are of no use."
  type = object({
    minimum = number
    maximum = number
  })
  default = { minimum = 1, maximum = 2 }

  validation {
    condition     = var.tasks.minimum >= 1 && var.tasks.minimum <= var.tasks.maximum && floor(var.tasks.minimum) == var.tasks.minimum && floor(var.tasks.maximum) == var.tasks.maximum
    error_message = "There must be at least one task a group, and no more at least than at most."
  }

  validation {
    condition     = var.tasks.maximum * (length(var.groups) + 1) <= 8
    error_message = "All groups together, and one of them twice while it is upgraded, may have 8 tasks: an answer of AWS Cloud Map's DNS has no more addresses, and who is not found is not asked. Take larger tasks."
  }
}

variable "topics" {
  description = "Kafka topics of the catalog's datasets: their lag is what the layer is scaled on."
  type        = list(string)
  default     = ["sales"]

  validation {
    condition     = length(var.topics) >= 1 && length(var.topics) <= 8 && length(distinct(var.topics)) == length(var.topics)
    error_message = "There must be 1 to 8 different topics: an alarm of Amazon CloudWatch reads no more than ten metrics."
  }

  validation {
    condition     = alltrue([for topic in var.topics : can(regex("^[A-Za-z0-9._-]{1,249}$", topic))])
    error_message = "A topic's name must be letters, digits, `.`, `_` and `-`."
  }
}

variable "lag" {
  description = "Events that a group is behind: above `high` for three minutes it gets a task more, below `low` and with its processors idle for half an hour one less."
  type = object({
    high = optional(number, 100000)
    low  = optional(number, 1000)
  })
  default = {}

  validation {
    condition     = var.lag.low >= 1 && var.lag.low < var.lag.high
    error_message = "The low mark must be at least 1 and below the high one."
  }
}

variable "memory_share" {
  description = "Share of a task's memory that states may take before their head stops."
  type        = number
  default     = 0.7

  validation {
    condition     = var.memory_share >= 0.1 && var.memory_share <= 0.85
    error_message = "The share must be from 0.1 to 0.85: the rest is for everything else that the process does."
  }
}
