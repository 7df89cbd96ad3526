plugin "terraform" {
  enabled = true
  preset  = "all"
}

# Files are split by subject, each module's README says by which.
rule "terraform_standard_module_structure" {
  enabled = false
}
