# shellcheck shell=bash disable=SC2154
# dist/deskbridge-VERSION-RELEASE.MACHINE.rpm. Sourced by scripts/pack.sh.

pack_rpm() {
    needs rpmbuild rpm
    staged "$work/rpm"
    put 644 "$work/generated/_deskbridge" usr/share/zsh/site-functions/_deskbridge
    put 644 LICENSE-APACHE usr/share/licenses/deskbridge/LICENSE-APACHE
    put 644 LICENSE-MIT usr/share/licenses/deskbridge/LICENSE-MIT
    put 644 CHANGELOG.md usr/share/doc/deskbridge/CHANGELOG.md
    dated "$root"
    # The binary stays as it is: no stripping, no links of build ids.
    rpmbuild -bb --quiet --target "$(uname -m)" \
        --define "_topdir $work/rpmbuild" --define "_rpmdir $work/rpms" \
        --define "_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" \
        --define "package_version $version" --define "package_release ${RPM_RELEASE:-1}" \
        --define "package_maintainer $maintainer" \
        --define "package_date $(date --utc --date="@$SOURCE_DATE_EPOCH" '+%a %b %d %Y')" --define "staged $root" \
        --define "_buildhost reproducible" --define "use_source_date_epoch_as_buildtime 1" \
        --define "clamp_mtime_to_source_date_epoch 1" --define "_binary_payload w19.zstdio" \
        --define "__os_install_post %{nil}" --define "debug_package %{nil}" --define "_build_id_links none" \
        packaging/rpm/deskbridge.spec >"$work/rpmbuild.log" 2>&1 ||
        { cat "$work/rpmbuild.log" >&2; fail "rpmbuild ended with an error"; }
    mv "$work"/rpms/*.rpm "$dist/"
}
