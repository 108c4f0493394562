//! The query of a request: metav1's List-, Get-, Create-, Update-, Patch- and DeleteOptions.

use crate::http::error::Status;

/// The parameters in the order they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: &str) -> Self {
        Query(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// With one parameter.
    pub fn of(name: &str, value: &str) -> Self {
        Query(vec![(name.to_owned(), value.to_owned())])
    }

    /// The first value; an empty one counts as absent, as in Kubernetes.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// All but `false` (in any case: Python writes `False`) and `0` is true, a parameter without a value too, as
    /// Kubernetes' conversion has it.
    pub fn flag(&self, name: &str) -> bool {
        let is_true = |value: &str| value != "0" && !value.eq_ignore_ascii_case("false");
        self.0.iter().find(|(key, _)| key == name).is_some_and(|(_, value)| is_true(value))
    }

    pub fn optional_flag(&self, name: &str) -> Option<bool> {
        self.0.iter().any(|(key, _)| key == name).then(|| self.flag(name))
    }

    pub fn integer(&self, name: &str) -> Result<Option<i64>, Status> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let syntax = |_| Status::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"));
        text.parse().map(Some).map_err(syntax)
    }

    /// Whether nothing is to be written. Only `All` is known.
    pub fn dry_run(&self) -> Result<bool, Status> {
        dry_run(self.all("dryRun").filter(|value| !value.is_empty()))
    }
}

pub(crate) fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, Status> {
    let mut dry = false;
    for value in values {
        if value != "All" {
            let error = crate::http::error::Invalid::not_supported("dryRun", &vec![value].into(), &["All"]);
            return Err(Status::invalid("meta.k8s.io", "CreateOptions", "", &[error]));
        }
        dry = true;
    }
    Ok(dry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_true_unless_it_says_otherwise() {
        let flag = |query: &str| Query::parse(query).flag("watch");
        assert!(flag("watch") && flag("watch=1") && flag("watch=true") && flag("watch=True"));
        assert!(!flag("") && !flag("watch=0") && !flag("watch=false") && !flag("watch=False"));
    }
}
