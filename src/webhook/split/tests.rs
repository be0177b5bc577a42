use crate::webhook::Content;
use crate::webhook::samples;

#[test]
fn the_published_example_is_one_event_with_the_exact_bytes_of_its_element() {
    let body = samples::COMPLETED;
    let event = samples::event(body);
    assert_eq!(body.len(), 1544);
    assert_eq!(event.body.len(), 1537);
    assert_eq!(event.body, body[4..1541]);
    let Content::Session(fields) = event.content else {
        panic!("a session")
    };
    assert_eq!(fields.session, "1530162945-9852");
    assert_eq!(fields.status, "completed");
    assert_eq!(fields.session_type.as_deref(), Some("request"));
    assert_eq!(fields.previous_status.as_deref(), Some("handled"));
    assert_eq!(fields.company.as_deref(), Some("DeskDirectorLtd"));
}
