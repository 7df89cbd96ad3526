variable "region" {
  description = "AWS region."
  type        = string
}

variable "environment" {
  description = "Name of the deployment, as the foundation has it."
  type        = string
}

variable "name" {
  description = "The layer."
  type        = string
}

variable "image_tag" {
  description = "Tag of the image to run."
  type        = string
}

variable "cpu" {
  description = "CPU units of a task: 1024 are one."
  type        = number
}

variable "memory_mib" {
  description = "Memory of a task, in MiB."
  type        = number
}

variable "scratch_gib" {
  description = "Disk of a task, in GiB, for what does not fit its memory."
  type        = number
  default     = 21
}

variable "services" {
  description = "Services to run, by name: how many tasks at first, and what is special to it."
  type = map(object({
    tasks       = number
    image_tag   = optional(string)
    environment = optional(map(string), {})
  }))
}

variable "environment_variables" {
  description = "Environment of every task, beside what all layers have."
  type        = map(string)
  default     = {}
}

variable "secrets" {
  description = "Environment of every task that comes out of secrets, beside what all layers have: the secret's ARN, with a member where it has them (`arn:member::`)."
  type        = map(string)
  default     = {}
}

variable "statements" {
  description = "What the tasks may do in the store: actions, and on which parts of it."
  type = list(object({
    sid     = string
    actions = list(string)
    parts   = list(string)
  }))
}

variable "listed" {
  description = "Parts of the store that the tasks may list."
  type        = list(string)
}

variable "writes" {
  description = "Whether the tasks may encrypt with the store's key: only who writes needs to."
  type        = bool
  default     = false
}

variable "deployment" {
  description = "How many of the wanted tasks stay, and how many there may be, while new ones replace them; in percent."
  type = object({
    minimum = number
    maximum = number
  })
}

variable "registry_arn" {
  description = "Cloud Map service that the tasks are found by."
  type        = string
  default     = null
}

variable "target_group_arn" {
  description = "Target group of the load balancer that the tasks stand behind."
  type        = string
  default     = null
}

variable "grace_seconds" {
  description = "How long a new task may take to be healthy."
  type        = number
  default     = 120
}

variable "stop_seconds" {
  description = "How long a task may take to stop in order before it is killed."
  type        = number
  default     = 60
}
