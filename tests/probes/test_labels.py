"""Labels under views agree with what the views do to pixels and with what a camera would see."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from robossl.probes.frames import Label
from robossl.probes.label_maps import move_boxes, move_label, move_points, roll_poses, turn_angles

HW = (60, 100)  # not square: turning must mind the aspect
HALF = np.diag([HW[1] / 2, HW[0] / 2, 1.0])
points_inside = st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))


def of_pixels(matrix):
    return np.linalg.inv(HALF) @ matrix @ HALF


def rotation(degrees):
    """Counter-clockwise as seen, y down."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return of_pixels(np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]]))


def dot(point, hw=HW):
    """A soft dot at a place of a picture."""
    y, x = (2 * np.arange(size) + 1 - size for size in hw)
    at = np.array([point[0] * hw[1], point[1] * hw[0]])
    square = (x[None] - at[0]) ** 2 + (y[:, None] - at[1]) ** 2
    return (255 * np.exp(-square / (2 * 3.0**2))).astype(np.uint8)


def centroid(image):
    h, w = image.shape
    weight = image.astype(float) / image.astype(float).sum()
    return np.array(
        [
            (weight.sum(0) * ((2 * np.arange(w) + 1) / w - 1)).sum(),
            (weight.sum(1) * ((2 * np.arange(h) + 1) / h - 1)).sum(),
        ]
    )


def moved(point, homography):
    return move_points(np.array([point]), homography[None])[0]


@settings(deadline=None)
@given(point=points_inside, degrees=st.floats(-180, 180))
def test_points_turn_as_pillow_turns_pictures(point, degrees):
    at = np.array(point) * [0.4, 1]  # stays in the picture whatever the angle
    seen = centroid(np.asarray(Image.fromarray(dot(at)).rotate(degrees, Image.Resampling.BILINEAR)))
    np.testing.assert_allclose(moved(at, rotation(degrees)), seen, atol=0.01)


@settings(deadline=None)
@given(point=points_inside)
def test_points_are_mirrored_as_pictures_are(point):
    np.testing.assert_allclose(moved(point, np.diag([-1.0, 1, 1])), centroid(dot(point)[:, ::-1]), atol=1e-3)


@settings(deadline=None)
@given(point=points_inside, turns=st.integers(0, 3))
def test_points_turn_with_the_centred_square(point, turns):
    at = np.array(point) * [0.5, 1]
    side, margin = HW[0], (HW[1] - HW[0]) // 2
    square = np.rot90(dot(at)[:, margin : margin + side], turns)
    c, s = round(math.cos(turns * math.pi / 2)), round(math.sin(turns * math.pi / 2))
    homography = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]]) @ np.diag([HW[1] / side, 1.0, 1.0])
    np.testing.assert_allclose(moved(at, homography), centroid(square), atol=2e-3)


def test_points_shift_scale_and_crop_as_pictures_do():
    at = (0.1, -0.2)
    shifted = np.roll(dot(at), (6, 10), axis=(0, 1))  # a tenth of each side, down and to the right
    np.testing.assert_allclose(
        moved(at, np.array([[1, 0, 0.2], [0, 1, 0.2], [0, 0, 1.0]])), centroid(shifted), atol=1e-3
    )
    part = dot(at)[15:45, 25:75]  # the middle quarter of the area
    np.testing.assert_allclose(moved(at, np.diag([2.0, 2, 1])), centroid(part), atol=1e-3)


def test_points_follow_a_perspective_as_pillow_does():
    homography = np.array([[1.1, 0.05, 0.05], [-0.04, 0.95, 0.02], [0.1, -0.05, 1.0]])
    pixels = np.array([[HW[1] / 2, 0, HW[1] / 2], [0, HW[0] / 2, HW[0] / 2], [0, 0, 1]])
    back = pixels @ np.linalg.inv(homography) @ np.linalg.inv(pixels)
    coefficients = tuple((back / back[2, 2]).ravel()[:8])
    for at in ((0.2, 0.3), (-0.3, 0.1), (0.4, -0.4)):
        picture = Image.fromarray(dot(at))
        seen = picture.transform(picture.size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR)
        np.testing.assert_allclose(moved(at, homography), centroid(np.asarray(seen)), atol=0.01)


@settings(deadline=None)
@given(
    angle=st.floats(-3, 3),
    degrees=st.floats(-170, 170),
    mirrored=st.booleans(),
    at=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
)
def test_angles_are_those_of_moved_directions(angle, degrees, mirrored, at):
    homography = rotation(degrees) @ np.diag([-1.0 if mirrored else 1.0, 1, 1])
    step = np.array([math.cos(angle) / HW[1], -math.sin(angle) / HW[0]])  # counter-clockwise as seen, y down
    ends = move_points(np.stack([at, at + step]), np.stack([homography] * 2)) * np.array(HW[::-1])
    way = ends[1] - ends[0]
    label = Label("angle", np.array([[angle]]))
    factor = "hflip" if mirrored else "rotation"
    turned = move_label(label, factor=factor, family="geometric", to_view=homography[None], hw=HW).label
    assert turned is not None
    off = turned.values[0, 0] - math.atan2(-way[1], way[0])
    assert math.cos(off) == pytest.approx(1, abs=1e-9)


def test_an_angle_grows_with_a_counter_clockwise_turn_and_flips_about_the_vertical():
    turn = np.array([[[0.0, 1], [-1, 0]]])  # 90 degrees in pixels
    assert turn_angles(np.array([[0.3]]), turn)[0, 0] == pytest.approx(0.3 + math.pi / 2)
    assert turn_angles(np.array([[0.3]]), np.array([[[-1.0, 0], [0, 1]]]))[0, 0] == pytest.approx(math.pi - 0.3)


@settings(deadline=None)
@given(degrees=st.floats(-180, 180), seed=st.integers(0, 1000))
def test_a_rolled_camera_sees_what_the_turned_picture_shows(degrees, seed):
    rng = np.random.default_rng(seed)
    pose = np.concatenate([rng.normal(size=3), Rotation.random(random_state=seed).as_quat()])
    seen = rng.uniform(-0.3, 0.3, size=(5, 2))  # on the sensor, x right and y down, focal length 1 half height
    rays = np.column_stack([seen * [HW[1] / HW[0], 1], np.ones(5)])
    depth = rng.uniform(1, 4, size=(5, 1))
    world = Rotation.from_quat(pose[3:]).apply(rays * depth) + pose[:3]
    label = Label("pose", pose[None])
    found = move_label(label, factor="rotation", family="geometric", to_view=rotation(degrees)[None], hw=HW).label
    assert found is not None
    rolled = found.values[0]
    np.testing.assert_array_equal(rolled[:3], pose[:3])
    local = Rotation.from_quat(rolled[3:]).inv().apply(world - rolled[:3])
    again = local[:, :2] / local[:, 2:] / [HW[1] / HW[0], 1]
    np.testing.assert_allclose(again, move_points(seen, np.stack([rotation(degrees)] * 5)), atol=1e-9)


def test_each_pose_has_its_own_roll_and_one_without_a_quaternion_stays_unknown():
    poses = np.array([[0.0, 0, 0, 0, 0, 0, 1], [np.nan] * 7, [1.0, 2, 3, 0, 0, 0, 1]])
    rolled = roll_poses(poses, np.array([math.pi, math.pi, math.pi / 2]))
    np.testing.assert_allclose(np.abs(rolled[0, 3:]), [0, 0, 1, 0], atol=1e-12)
    assert np.isnan(rolled[1]).all()
    np.testing.assert_allclose(rolled[2], [1, 2, 3, 0, 0, math.sqrt(0.5), math.sqrt(0.5)])


def test_a_box_stays_about_its_corners():
    turn = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(move_boxes(np.array([[0.2, 0.1, 0.4, 0.6]]), turn[None]), [[0.1, -0.2, 0.6, 0.4]])


@pytest.mark.parametrize(
    ("type", "factor", "family", "reason"),
    [
        ("pose", "hflip", "geometric", "mirrored"),
        ("pose", "translation", "geometric", "translation"),
        ("pose", "scale", "geometric", "scale"),
        ("pose", "perspective", "geometric", "perspective"),
        ("angle", "perspective", "geometric", "place"),
        ("angle", "camera_perspective", "scene", "place"),
        ("pose", "camera_rotation", "scene", "camera"),
        ("point", "latency", "temporal", "earlier"),
        ("class", "latency", "temporal", "earlier"),
    ],
)
def test_what_has_no_label_has_a_reason(type, factor, family, reason):
    label = Label(type, np.zeros((1, {"pose": 7, "angle": 1, "point": 2, "class": 1}[type])))
    found = move_label(label, factor=factor, family=family, to_view=np.eye(3)[None], hw=HW)
    assert found.label is None
    assert reason in str(found.reason)


@pytest.mark.parametrize("type", ["class", "point", "angle", "pose", "box"])
@pytest.mark.parametrize(
    ("factor", "family"), [("hue", "photometric"), ("distractors", "scene"), ("occlusion", "scene")]
)
def test_what_moves_nothing_leaves_every_label(type, factor, family):
    label = Label(type, np.ones((1, 7)))
    assert move_label(label, factor=factor, family=family, to_view=None, hw=HW) == (label, None)


def test_a_class_stays_under_geometry_and_an_angle_under_shift_and_crop():
    named = Label("class", np.array([[2.0]]), ("a", "b", "c"))
    for factor in ("hflip", "rotation", "crop", "perspective", "camera_shift"):
        assert move_label(named, factor=factor, family="geometric", to_view=rotation(30)[None], hw=HW).label == named
    angle = Label("angle", np.array([[0.7]]))
    for homography in (np.diag([2.0, 2, 1]), np.array([[1, 0, 0.2], [0, 1, 0.1], [0, 0, 1.0]])):
        found = move_label(angle, factor="crop", family="geometric", to_view=homography[None], hw=HW).label
        assert found is not None
        assert found.values[0, 0] == pytest.approx(0.7)


def test_classes_that_name_sides_change_them_in_a_mirror():
    sides = Label("class", np.array([[0.0], [1], [np.nan]]), ("left", "right"), mirrored=(1, 0))
    moves = {"family": "geometric", "to_view": np.stack([rotation(90)] * 3), "hw": HW}
    flipped = move_label(sides, factor="hflip", **moves).label
    assert flipped is not None and flipped.classes == sides.classes
    np.testing.assert_array_equal(flipped.values, [[1], [0], [np.nan]])
    assert move_label(sides, factor="rotation", **moves).label == sides
    assert move_label(sides, factor="rot90", **moves).reason == "the classes name sides, which a quarter turn removes"


def test_what_leaves_the_view_has_no_label():
    point = Label("point", np.array([[0.9, 0.0], [0.5, 0.0], [0.0, 0.0]]))
    shift = np.array([[1, 0, 0.2], [0, 1, 0], [0, 0, 1.0]])
    shifts = np.stack([shift] * 3)
    seen = move_label(point, factor="translation", family="geometric", to_view=shifts, hw=HW).label
    in_disc = move_label(point, factor="translation", family="geometric", to_view=shifts, hw=HW, disc=True).label
    assert seen is not None and in_disc is not None
    assert np.isfinite(seen.values).all(axis=1).tolist() == [False, True, True]
    assert np.isfinite(in_disc.values).all(axis=1).tolist() == [False, False, True]  # 0.7 of the half width is outside
