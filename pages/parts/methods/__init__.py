"""The panels of single methods on the Step page, one file each."""
